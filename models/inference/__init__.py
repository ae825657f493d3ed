"""Using trained generators: on images of any size, on folders, on videos, in other runtimes, in the browser.

`from models import Translator` is what other programs need of it.
"""
