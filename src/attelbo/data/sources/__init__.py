"""Where images come from: one class for each data set, all with the interface of ``ImageSource``."""

from attelbo.data.sources.arrays import Arrays
from attelbo.data.sources.base import Factor, Images, ImageSource, Splits
from attelbo.data.sources.binarized_mnist import BinarizedMNIST
from attelbo.data.sources.cars3d import Cars3D
from attelbo.data.sources.celeba import CelebA
from attelbo.data.sources.cifar import CIFAR10, CIFAR100
from attelbo.data.sources.digits import Digits
from attelbo.data.sources.dsprites import DSprites
from attelbo.data.sources.image_folder import ImageFolder
from attelbo.data.sources.imagenet import ImageNet
from attelbo.data.sources.mnist import KMNIST, MNIST, FashionMNIST
from attelbo.data.sources.mpi3d import MPI3D
from attelbo.data.sources.multi_digits import MultiDigits
from attelbo.data.sources.omniglot import Omniglot
from attelbo.data.sources.shapes3d import Shapes3D
from attelbo.data.sources.small_norb import SmallNORB
from attelbo.data.sources.sprites import Sprites
from attelbo.data.sources.svhn import SVHN

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "KMNIST",
    "MNIST",
    "MPI3D",
    "SVHN",
    "Arrays",
    "BinarizedMNIST",
    "Cars3D",
    "CelebA",
    "DSprites",
    "Digits",
    "Factor",
    "FashionMNIST",
    "ImageFolder",
    "ImageNet",
    "ImageSource",
    "Images",
    "MultiDigits",
    "Omniglot",
    "Shapes3D",
    "SmallNORB",
    "Splits",
    "Sprites",
]
