"""A pipeline of diffusers, for what its own cannot draw: pictures of classes, guided, and large pictures by two networks.

    pipe = DiffusionPipeline.from_pretrained("flowers", trust_remote_code=True)          # the folder that holds this file
    pictures = pipe(["rose", "rose", "daisy"], generator=torch.manual_seed(0)).images

hcrot copies this file into the folders that it writes (``hcrot export``, ``hcrot.pipelines.save``). It imports diffusers and PyTorch only.
What it computes is explained in hcrot/pipelines/sample.py and hcrot/pipelines/cascade.py.
"""

import inspect

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, UNet2DModel
from diffusers.utils.torch_utils import randn_tensor

__all__ = ["HcrotPipeline"]


class HcrotPipeline(DiffusionPipeline):
    """Pictures from noise.

    Args:
        unet, scheduler: what draws. With small_unet it enlarges instead: it sees a small picture beside the noisy one.
        small_unet, small_scheduler: what draws the small pictures, if there are two networks.
        id2label: the names of the classes, by number.
        null_label: the number that means "of any class", which guidance needs.
    """

    model_cpu_offload_seq = "small_unet->unet"
    _optional_components = ["small_unet", "small_scheduler"]

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler,
        small_unet: UNet2DModel | None = None,
        small_scheduler=None,
        id2label: dict | None = None,
        null_label: int | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, small_unet=small_unet, small_scheduler=small_scheduler)
        self.register_to_config(id2label=id2label, null_label=null_label)
        self.labels = {name: int(number) for number, name in (id2label or {}).items()}

    @torch.no_grad()
    def __call__(
        self,
        class_labels=None,
        batch_size: int = 1,
        num_inference_steps: int = 25,
        guidance_scale: float = 1.0,
        generator=None,
        strength: float = 0.1,
        output_type: str = "pil",
        return_dict: bool = True,
        **step_options,
    ):
        """Draw.

        Args:
            class_labels: a name or a number for each picture, or one for all; None: any class.
            batch_size: how many pictures, where class_labels is not a list that says it.
            num_inference_steps: from noise to a picture; of each network.
            guidance_scale: how much more of its class a picture has; 1: no more.
            generator: a torch.Generator, or a list with one for each picture.
            strength: of the noise on the small pictures that hides their mistakes from the second network.
            output_type: "pil", "np" (N, H, W, C) or "pt" (N, C, H, W), both in [0, 1].
            return_dict: False: a tuple, whose first element are the pictures.
            step_options: further ones of the scheduler's step, such as eta.

        Raises:
            ValueError: a name that no class has, no labels where there have to be some, guidance without a label for "of any class".
        """
        labels = self.numbers_of(class_labels, batch_size, guidance_scale != 1)
        batch = batch_size if labels is None else len(labels)
        rest = (num_inference_steps, generator, step_options)
        if self.small_unet is None:
            images = self.denoised(self.unet, self.scheduler, batch, labels, guidance_scale, None, *rest).clamp(-1, 1)
        else:
            small = self.denoised(self.small_unet, self.small_scheduler, batch, labels, guidance_scale, None, *rest).clamp(-1, 1)
            small = small + strength * randn_tensor(small.shape, generator, small.device, small.dtype)
            # antialias makes it Keys' kernel with a = -1/2, as in Pillow and hcrot.data.resize; without it a = -3/4
            enlarged = torch.nn.functional.interpolate(small.float(), size_of(self.unet), mode="bicubic", antialias=True).to(small.dtype)
            images = (enlarged + self.denoised(self.unet, self.scheduler, batch, labels, 1, enlarged, *rest)).clamp(-1, 1)
        images = images / 2 + 0.5
        if output_type != "pt":
            images = images.cpu().permute(0, 2, 3, 1).float().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def numbers_of(self, class_labels, batch_size: int, guided: bool):
        """The label of each picture; None of networks without classes."""
        of_classes = self.unet.config.num_class_embeds is not None or self.unet.config.class_embed_type is not None
        if guided and (not of_classes or self.config.null_label is None):
            raise ValueError("guidance_scale: these networks were not trained for it, so expected 1")
        if not of_classes:
            if class_labels is not None:
                raise ValueError(f"class_labels: these networks have no classes, expected None, got {class_labels}")
            return None
        if class_labels is None:
            class_labels = self.config.null_label
        if class_labels is None:
            raise ValueError(f"class_labels: expected names or numbers of classes; the names are {', '.join(self.labels) or 'not known'}")
        if isinstance(class_labels, int | str):
            class_labels = [class_labels] * batch_size
        unknown = [name for name in class_labels if isinstance(name, str) and name not in self.labels]
        if unknown:
            raise ValueError(f"class_labels: there is no class {unknown[0]!r}; expected {', '.join(self.labels) or 'numbers'}")
        if not isinstance(class_labels, torch.Tensor):
            class_labels = torch.tensor([self.labels[name] if isinstance(name, str) else name for name in class_labels])
        return class_labels.to(self._execution_device)

    def denoised(self, unet, scheduler, batch, labels, guidance_scale, condition, num_inference_steps, generator, step_options):
        """What one network makes of noise, (B, C, H, W), not clipped; ``condition`` is the picture that it sees beside x_t."""
        channels = unet.config.in_channels - (0 if condition is None else condition.shape[1])
        scheduler.set_timesteps(num_inference_steps)
        x = randn_tensor((batch, channels, *size_of(unet)), generator, self._execution_device, unet.dtype) * scheduler.init_noise_sigma
        if "generator" in inspect.signature(scheduler.step).parameters:
            step_options = {"generator": generator, **step_options}
        for t in self.progress_bar(scheduler.timesteps):
            seen = scheduler.scale_model_input(x, t)
            seen = seen if condition is None else torch.cat([seen, condition], dim=1)
            output = unet(seen, t, class_labels=labels).sample
            if guidance_scale != 1:
                without = unet(seen, t, class_labels=torch.full_like(labels, self.config.null_label)).sample[:, :channels]
                guided = without + guidance_scale * (output[:, :channels] - without)
                output = torch.cat([guided, output[:, channels:]], dim=1)  # the rest: a learned variance
            x = scheduler.step(output, t, x, **step_options).prev_sample
        return x


def size_of(unet: UNet2DModel) -> tuple[int, int]:
    """Height and width of the pictures that a network draws."""
    size = unet.config.sample_size
    return (size, size) if isinstance(size, int) else tuple(size)
