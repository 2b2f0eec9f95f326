"""What lies on the servers of the tests here."""

from tests.stores.bucket import far, here

__all__ = ["far", "here"]
