"""A U-Net against diffusers', with the same weights: forward, the gradients of the inputs and that of every parameter."""

import numpy as np
import pytest

from hcrot.layers.dropout import Dropout

torch = pytest.importorskip("torch")


def with_the_weights_of(theirs, ours):
    """Ours, after theirs' weights were moved: norms' weights away from 1, biases from 0 (B05)."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours


def worst(ours, theirs, scale_of=None):
    """The largest difference, relative to the largest entry."""
    return np.abs(ours - theirs).max() / max(np.abs(theirs if scale_of is None else scale_of).max(), 1e-12)


def sibling_of_a_vanishing(key, model):
    """Where a gradient is zero but for rounding, the parameter beside it whose gradient gives the scale; else None.

    Softmax does not see a number added to a whole row of scores, so none of to_k's bias. A norm with one channel to a group does not see a
    number added to a whole channel, so neither the bias of the convolution before it nor the time.
    """
    block, _, name = key.rpartition("resnets.")
    if key.endswith("to_k.bias"):
        return key.replace("bias", "weight")
    if not name:
        return None
    modules = dict(model.named_modules())
    resnet = f"{block}resnets.{name.split('.')[0]}"
    last = f"up_blocks.{len(model.up_blocks) - 1}.resnets.{len(model.up_blocks[-1].resnets) - 1}"
    for norm, shifts, sibling in (
        (f"{resnet}.norm2", ("conv1.bias", "time_emb_proj.weight", "time_emb_proj.bias"), "conv1.weight"),
        ("conv_norm_out", ("conv2.bias", "conv_shortcut.bias") if resnet == last else (), "conv2.weight"),
    ):
        if key.removeprefix(f"{resnet}.") in shifts and modules[norm].num_groups == modules[norm].num_channels:
            return f"{resnet}.{sibling}"
    return None


def compare(ours, theirs, output, inputs, forward_bound=1e-5, gradient_bound=1e-4):
    """Run theirs forward, with the entries dropped that ours dropped when it computed ``output``, and both backward; all must agree.

    ``inputs`` are the arguments of both, the sample first; of those that are floating-point arrays of its dtype, gradients are compared.
    """
    for name, module in ours.named_modules():
        if isinstance(module, Dropout):
            mask = torch.from_numpy(np.ascontiguousarray(module._kept[1][-1][0][0]))
            theirs.get_submodule(name).forward = lambda x, mask=mask: x * mask
    tensors = [None if array is None else torch.from_numpy(array) for array in inputs]
    floating = [tensor.requires_grad_() for tensor in tensors if tensor is not None and tensor.is_floating_point()]
    expected = theirs(*tensors).sample
    assert output.dtype == inputs[0].dtype
    assert worst(output, expected.detach().numpy()) < forward_bound

    cotangent = np.random.default_rng(2).standard_normal(output.shape).astype(output.dtype)
    expected.backward(torch.from_numpy(cotangent))
    dinputs = ours.backward(cotangent)
    dinputs = dinputs if isinstance(dinputs, tuple) else (dinputs,)
    errors = {f"input {i}": worst(dx, tensor.grad.numpy()) for i, (dx, tensor) in enumerate(zip(dinputs, floating, strict=True))}
    gradients = {key: parameter.grad.numpy() for key, parameter in theirs.named_parameters() if parameter.requires_grad}
    trainable = {key: parameter.grad for key, parameter in ours.named_parameters() if parameter.trainable}
    assert trainable.keys() == gradients.keys()
    for key, gradient in trainable.items():
        errors[key] = worst(gradient, gradients[key], scale_of=gradients[sibling_of_a_vanishing(key, ours) or key])
        if key.endswith(".bias") and not errors[key] < gradient_bound:
            # a sum over images and pixels may nearly cancel; its rounding error is that of its terms, which the weight's gradient shows
            weight = gradients[key.replace(".bias", ".weight")]
            errors[key] = worst(gradient, gradients[key], scale_of=max(np.abs(gradients[key]).max(), np.abs(weight).max() / 10))
    assert {key: error for key, error in errors.items() if not error < gradient_bound} == {}
