"""Serve a web page to try generators: `python scripts/app.py`, then open the printed address."""

import re
import socket
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from util.startup import prepare_import

    prepare_import()

# isort: split

from models import Translator
from models.inference.checkpoint import list_checkpoints
from options.base_options import shown_channels
from util.channel_view import parse_channels
from util.cli import CLIParser, configure_stdio, port, positive_float
from util.errors import UserError, exit_on_user_error
from util.runtime.device import AUTO

LOOPBACK = "127.0.0.1"
HUGGING_FACE = "https://huggingface.co"
ORIGIN = re.compile(r"https?://[\w.-]+(:\d+)?", re.ASCII)


def origin(text: str) -> str:
    """Parse an origin such as https://huggingface.co. It becomes a part of a header, so nothing else is accepted."""
    if not ORIGIN.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is not an origin such as {HUGGING_FACE}")
    return text


def build_parser() -> ArgumentParser:
    parser = CLIParser(description="Serve a web page to translate images. By default, only this machine can open it.")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        default=[Path("checkpoints")],
        help="weights files, run folders, or folders of run folders; by default the folder checkpoints",
    )
    parser.add_argument(
        "--host", default=LOOPBACK, help="address to listen on; any other address lets other machines connect"
    )
    parser.add_argument("--port", type=port, default=7860, help="port to listen on; 0 for any free port")
    parser.add_argument(
        "--embed",
        metavar="ORIGIN",
        type=origin,
        nargs="?",
        const=HUGGING_FACE,
        default=None,
        help=f"origin whose pages may show the app in a frame; without ORIGIN: {HUGGING_FACE}, which shows Spaces",
    )
    parser.add_argument(
        "--show_channels",
        type=shown_channels,
        metavar="R,G,B",
        help="numbers of the channels, from 1, to show of n-channel images; by default 1,2,3, or 1 of two",
    )
    parser.add_argument("--gpu_ids", default=AUTO, help="GPU index; -1 for the CPU; auto: a GPU if there is one")
    parser.add_argument("--max_megabytes", type=positive_float, default=64, help="size limit of uploaded files in megabytes")
    parser.add_argument("--max_megapixels", type=positive_float, default=50, help="size limit of images in megapixels")
    return parser


def serve(arguments: Namespace) -> None:
    """Serve the page until interrupted."""
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise UserError("app.py: packages are missing. Install them with `pip install starlette uvicorn`.")
    import uvicorn

    from models.inference.web import create_app

    files = [file for path in arguments.checkpoint for file in list_checkpoints(path)]
    checkpoints = {
        label: partial(Translator.from_checkpoint, file, gpu_ids=arguments.gpu_ids)
        for label, file in label_checkpoints(files).items()
    }
    for file in files[:1]:
        Translator.from_checkpoint(file, gpu_ids=arguments.gpu_ids)  # report errors now, not at the first request
    try:
        listener = socket.create_server((arguments.host, arguments.port))
    except OSError as error:
        raise UserError(
            f"--host {arguments.host} --port {arguments.port}: {error.strerror}. Use --port 0 for any free port."
        ) from None
    hosts = [LOOPBACK, "localhost", arguments.host]
    if not ip_address(listener.getsockname()[0]).is_loopback:  # --host may be a name
        print("note: other machines can open this page")
        hosts = ["*"]
    limits = int(arguments.max_megabytes * 10**6), int(arguments.max_megapixels * 10**6)
    app = create_app(checkpoints, hosts, *limits, embed_in=arguments.embed, channels=parse_channels(arguments.show_channels))
    print(
        f"{len(checkpoints)} generator{'s' * (len(checkpoints) != 1)}; open http://{arguments.host}:{listener.getsockname()[1]}",
        flush=True,
    )
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listener])


def label_checkpoints(files: Sequence[Path]) -> dict[str, Path]:
    """Return the files by run and file name, as the page shows them. Files that share these are shown by their paths."""
    labels = [f"{file.resolve().parent.name} / {file.stem}" for file in files]
    unique = (str(file) if labels.count(label) > 1 else label for label, file in zip(labels, files, strict=True))
    return dict(zip(unique, files, strict=True))


def main() -> None:
    configure_stdio()
    with exit_on_user_error():
        try:
            serve(build_parser().parse_args())
        except KeyboardInterrupt:
            print("closed")


if __name__ == "__main__":
    main()
