"""A 3 becomes an 8 and stays itself otherwise: DiffusionCLIP (Kim, Kwon & Ye 2022), with a digit classifier in CLIP's place.

    python examples/mnist_ddpm.py --dataset digits                              the network
    python examples/mnist_cnn.py --dataset digits                              the classifier
    python examples/diffusion_clip.py
    python examples/diffusion_clip.py --from 1 --to 7

Real 3s are turned into their noise, up to a level. The network is then trained to make 8s of that noise, although it is told "3":

    loss = cross entropy(classifier(x_0), 8) + identity * mean |x_0 - the real 3|

The gradient goes back through the classifier, and through every step of the sampler, by the networks' hand-written backwards. The second
term keeps what need not change: slant, width, place. Into runs/diffusion_clip/ it writes diffusion_clip.png: digits that were not trained
on, what the network made of their noise before, and what it makes of it now.
"""

import copy
import sys

import numpy as np
from tqdm import tqdm

import hcrot
from hcrot.pipelines.chain import DDIMChain
from hcrot.pipelines.editing import invert
from hcrot.tools.arguments import number
from hcrot.tools.plotting import image_grid
from trained import add_classifier, judge, options_of, real_digits, run, trained


def main() -> None:
    parser = options_of(__doc__, "diffusion_clip", steps=40)
    add_classifier(parser)
    parser.add_argument("--from", dest="source", type=int, choices=range(10), default=3, metavar="N", help="(default: 3)")
    parser.add_argument("--to", type=int, choices=range(10), default=8, metavar="N", help="(default: 8)")
    parser.add_argument("--level", type=float, default=0.6, help="share of T up to which digits become noise (default: %(default)s)")
    parser.add_argument("--chain", type=number(int, 1), default=6, help="steps that are trained through (default: %(default)s)")
    parser.add_argument("--epochs", type=number(int, 1), default=12, help="passes over the digits (default: %(default)s)")
    parser.add_argument("--images", type=number(int, 2), default=120, help="digits, a fifth of them for the picture (default: %(default)s)")
    parser.add_argument("--identity", type=number(float, 0), default=1.0, help="weight of the second term (default: %(default)s)")
    parser.add_argument("--lr", type=number(float, 0), default=2e-4, help="AdamW's learning rate (default: %(default)s)")
    options = parser.parse_args()
    model, scheduler = trained(options)
    classifier = judge(options)
    images, labels = real_digits(model, options)
    images = images[labels == options.source][: options.images]
    count = max(1, len(images) // 5)
    told = np.full(len(images), options.source)
    level = round(options.level * (len(scheduler) - 1))
    way_up = np.unique(np.linspace(level, 0, options.inference_steps + 1).round().astype(int))[:0:-1]
    noise = invert(model, scheduler, images, timesteps=way_up, class_labels=told)

    tuned = copy.deepcopy(model).train()
    timesteps = np.unique(np.linspace(level, 0, options.chain + 1).round().astype(int))[:0:-1]
    chain, before = DDIMChain(tuned, scheduler, timesteps), DDIMChain(model, scheduler, timesteps)
    optimizer, rng = hcrot.AdamW(tuned.parameters(), lr=options.lr), np.random.default_rng(options.seed)
    for _ in tqdm(range(options.epochs), desc="epochs", disable=sys.stderr is None):
        for rows in np.array_split(count + rng.permutation(len(images) - count), max(1, (len(images) - count) // 16)):
            made = chain(noise[rows], told[rows])
            wrong, dlogits = hcrot.cross_entropy(classifier.train()(made), np.full(len(rows), options.to))
            changed, didentity = hcrot.l1_loss(made, images[rows])
            chain.backward(classifier.backward(dlogits) + np.float32(options.identity) * didentity)
            classifier.zero_grad()
            optimizer.step(max_grad_norm=1.0, zero_grad=True)
    with tuned.inference(), model.inference():
        shown = [images[:count], before(noise[:count], told[:count]), chain(noise[:count], told[:count])]
    for name, pictures in zip(("real", "before", "after"), shown, strict=True):
        read = classifier.read(np.clip(pictures, -1, 1))[0].argmax(axis=1)
        off = np.abs(pictures - shown[0]).mean()
        print(f"{name:8} read as {options.to}: {np.mean(read == options.to):6.1%}   off by {off:.3f} a pixel from the real ones")
    path = options.output / "diffusion_clip.png"
    rows = np.clip(np.concatenate([pictures[:12] for pictures in shown]), -1, 1)
    image_grid(rows, path, columns=min(12, count), row_labels=["real", "before", "after"])
    print(f"Pictures: {path} (last loss: {wrong:.3f} of the class, {changed:.3f} of the identity)")


if __name__ == "__main__":
    run(main)
