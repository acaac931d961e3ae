"""attelbo (attention x ELBO): a laboratory for variational autoencoders and attention models.

Importing this package costs nothing: no torch, no Lightning. Import what you need from its rooms,
``attelbo.attention``, ``attelbo.latent``, ``attelbo.networks``, ``attelbo.models``, ``attelbo.data``.
"""

__version__ = "0.1.0"
