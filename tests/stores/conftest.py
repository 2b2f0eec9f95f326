"""The server of the tests here, and what lies on it."""

from tests.azure_server import azure, azure_server
from tests.google_server import google, google_server
from tests.store_server import store, store_server
from tests.stores.bucket import far, here

__all__ = [
    "azure",
    "azure_server",
    "far",
    "google",
    "google_server",
    "here",
    "store",
    "store_server",
]
