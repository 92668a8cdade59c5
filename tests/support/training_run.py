"""A training run in small, with everything that a checkpoint keeps."""

import numpy as np

from hcrot.data import Batches
from hcrot.files.checkpoint import load_checkpoint, save_checkpoint
from hcrot.schedulers import DDPMScheduler
from hcrot.training.ema import EMA
from hcrot.training.losses import mse_loss
from hcrot.training.lr_schedules import get_scheduler
from hcrot.training.optim import AdamW, clip_grad_norm
from support.small_unets import tiny_model


class Run:
    """A whole training run in small; ``seed`` decides everything that a checkpoint must bring back."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.model = tiny_model(seed)
        self.scheduler = DDPMScheduler(num_train_timesteps=20, beta_schedule="squaredcos_cap_v2")
        self.optimizer = AdamW(self.model.parameters(), lr=1e-2)
        self.ema = EMA(self.model.parameters(), decay=0.9)
        images = np.random.default_rng(7).uniform(-1, 1, (7, 1, 5, 6)).astype(np.float32)
        self.batches = Batches(images, np.arange(7) % 3, batch_size=3, generator=rng)
        self.state = {
            "optimizer": self.optimizer,
            "schedule": get_scheduler("cosine", self.optimizer, 2, 12),
            "batches": self.batches,
            "rng": rng,
        }
        self.step, self.losses = 0, []

    def train(self, steps, after_each=lambda: None):
        while self.step < steps:
            for images, labels in self.batches:
                noise = self.state["rng"].standard_normal(images.shape, dtype=np.float32)
                t = self.state["rng"].integers(20, size=len(images))
                prediction = self.model(self.scheduler.add_noise(images, noise, t), t, labels)
                loss, dout = mse_loss(prediction, noise)
                self.model.backward(dout)
                clip_grad_norm(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.state["schedule"].step()
                self.ema.step()
                self.optimizer.zero_grad()
                self.step += 1
                self.losses.append(loss)
                after_each()
                if self.step == steps:
                    break
        return self

    def save(self, folder):
        progress = {"step": self.step, "losses": self.losses}
        save_checkpoint(folder, self.model, self.scheduler, ema=self.ema, state=self.state, progress=progress)

    def load(self, folder):
        progress = load_checkpoint(folder, self.model, ema=self.ema, state=self.state)
        self.step, self.losses = progress["step"], progress["losses"]
        return self

    def fill(self, step):
        """Make ``step`` every number in the run, so that a checkpoint of mixed parts shows."""
        for parameter, average, *moments in zip(self.model.parameters(), self.ema.averages, *self.optimizer.state.values(), strict=True):
            for array in (parameter.data, average, *moments):
                array.fill(step)
        self.optimizer.step_count = self.ema.step_count = self.step = step

    def steps(self):
        """What :meth:`fill` has made of each part, as a set: one number, unless parts are mixed."""
        values = [value for part in (self.model, self.ema, self.optimizer) for value in part.state_dict().values()]
        numbers = {number for value in values if isinstance(value, np.ndarray) for number in np.unique(value).tolist()}
        return numbers | {self.step, self.optimizer.step_count, self.ema.step_count}

    def everything(self):
        """Every number that the run will depend on, as bytes."""
        parts = {"model": self.model, "ema": self.ema} | {name: part for name, part in self.state.items() if name != "rng"}
        numbers = {f"{name}.{key}": np.asarray(value).tobytes() for name, part in parts.items() for key, value in part.state_dict().items()}
        return numbers | {"rng": repr(self.state["rng"].bit_generator.state), "losses": self.losses, "step": self.step}
