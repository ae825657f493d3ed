"""Run trained generators: on images of any size, folders and videos, in other runtimes and in the browser.

Other programs need `from models import Translator` only.
"""
