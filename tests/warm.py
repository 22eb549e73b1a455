"""A `python` that is warm: it forks from a process which has imported torch and the like.

A stage's imports take up to nine seconds of a core, and the tests start more than a hundred stages.
`start` puts a `python` in a folder for PATH. If it is asked to run a stage (`-m stages.…`), the
server forks, and the child runs it with the caller's arguments, environment, folder and files.
Anything else runs in the real Python. The project's own code is never imported by the server.
"""

import array
import atexit
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

IMPORTS = (
    *("torch", "torchvision", "torch.distributed", "numpy", "pandas", "PIL.Image", "pydantic"),
    *("scipy.stats", "scipy.optimize", "scipy.special", "sklearn.metrics", "matplotlib.figure"),
    *("typer", "tqdm", "jinja2", "safetensors.torch", "ruamel.yaml", "platformdirs", "yaml"),
    *("pooch", "requests", "captum.attr", "torch.optim", "torch.amp", "vl_convert"),
)


def start(folder: Path) -> Path:
    """Start the server of this test process; return the folder with its `python`."""
    address = folder / "socket"
    shim = folder / "bin" / "python"
    shim.parent.mkdir(parents=True)
    shim.write_text(f"#!{sys.executable} -ISE\n{CLIENT.format(address=str(address))}")
    shim.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, str(address)])
    atexit.register(server.kill)
    while not address.exists():
        assert server.poll() is None
        time.sleep(0.05)
    return shim.parent


CLIENT = """
import array, json, os, signal, socket, sys

if sys.argv[1:2] != ["-m"] or not sys.argv[2].startswith("stages."):
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
job = json.dumps([os.getcwd(), dict(os.environ), sys.argv[2:]]).encode()
files = array.array("i", [0, 1, 2])
server.sendmsg([len(job).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
server.sendall(job)
child = int.from_bytes(server.recv(4), "big")
for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, lambda number, frame: os.kill(child, number))
status = int.from_bytes(server.recv(4), "big", signed=True)
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def serve(address: str) -> None:
    """Answer one request after the other, each in a process of its own."""
    for name in IMPORTS:
        importlib.import_module(name)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{address}.new")
    listening.listen()
    os.rename(f"{address}.new", address)  # noqa: PTH104
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the handlers need no waiting for
    while True:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            handle(connection)
            os._exit(0)
        connection.close()


def handle(connection: socket.socket) -> None:
    """Fork the child that runs the stage, wait for it, and report how it ended."""
    files = array.array("i", [0, 0, 0])
    size, passed, *_ = connection.recvmsg(4, socket.CMSG_SPACE(files.itemsize * 3))
    files.frombytes(passed[0][2][: files.itemsize * 3])
    files = files[3:]
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += connection.recv(1 << 16)
    folder, environment, arguments = json.loads(text)
    child = os.fork()
    if child:
        connection.sendall(child.to_bytes(4, "big"))
        for file in files:
            os.close(file)
        connection.setblocking(False)
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                connection.sendall(code.to_bytes(4, "big", signed=True))
                return
            try:
                if connection.recv(1) == b"":  # the caller was killed
                    os.kill(child, signal.SIGKILL)
            except BlockingIOError:
                pass
            time.sleep(0.01)
    connection.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [arguments[0], *arguments[1:]]
    extra = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [folder, *extra, *sys.path[1:]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os._exit(run(arguments[0]))


def run(module: str) -> int:
    """Run a module as `python -m` does; return its exit status."""
    for stream in ("stdin", "stdout", "stderr"):
        number = ("stdin", "stdout", "stderr").index(stream)
        opened = open(number, "r" if number == 0 else "w", closefd=False)  # noqa: SIM115
        setattr(sys, stream, opened)
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    serve(sys.argv[1])
