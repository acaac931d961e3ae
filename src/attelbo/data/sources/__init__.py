"""Where images come from: one class for each data set, all with the interface of ``ImageSource``."""

from attelbo.data.sources.base import Images, ImageSource, Splits
from attelbo.data.sources.digits import Digits
from attelbo.data.sources.mnist import KMNIST, MNIST, FashionMNIST

__all__ = ["KMNIST", "MNIST", "Digits", "FashionMNIST", "ImageSource", "Images", "Splits"]
