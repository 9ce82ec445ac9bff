__version__ = "0.1.0"

# What pip installs until a release is on PyPI; everything that tells how to install reads it here.
SOURCE = "git+https://github.com/acert-zoo/acert"
