"""What trains a network: losses, optimizers, schedules of the learning rate, moving averages, the variational bound."""

__all__ = ()
