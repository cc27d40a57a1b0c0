"""Power cuts under a real engine; see tests/power/run."""

import argparse
import collections
import fcntl
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

# include/uapi/linux/fs.h: _IOR('X', 125, __u32), and what becomes of the journal.
FS_IOC_SHUTDOWN = 0x8004587D
WAYS = {"journal lost": 2, "journal flushed": 1}
IMAGE_BYTES = 8 << 30
PATIENCE_S = 60


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Volume:
    """An ext4 file system on a file, which can lose power."""

    def __init__(self, folder):
        self.image, self.place = f"{folder}/image", f"{folder}/volume"
        os.mkdir(self.place)
        with open(self.image, "wb") as image:
            image.truncate(IMAGE_BYTES)
        run("mkfs.ext4", "-q", "-F", self.image)
        self.device = run("losetup", "--find", "--show", self.image)
        self.mount()

    def mount(self):
        run("mount", self.device, self.place)

    def cut(self, way):
        handle = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, FS_IOC_SHUTDOWN, struct.pack("I", WAYS[way]))
        finally:
            os.close(handle)

    def unmount(self):
        end = time.monotonic() + PATIENCE_S
        while subprocess.run(["umount", self.place], capture_output=True).returncode != 0:
            if time.monotonic() > end:
                raise TimeoutError("the volume stays busy")
            time.sleep(0.05)

    def remove(self):
        subprocess.run(["umount", "-l", self.place], capture_output=True)
        subprocess.run(["losetup", "--detach", self.device], capture_output=True)


class Engine:
    def __init__(self, binaries, folder, data, ports, cores, runtime):
        self.log = open(f"{folder}/engine.log", "ab")
        self.http = ports[1]
        self.child = subprocess.Popen(
            [f"{binaries}/highwater", "serve", f"--data-dir={data}", f"--listen=127.0.0.1:{ports[0]}",
             f"--http=127.0.0.1:{ports[1]}", f"--cores={cores}", f"--runtime={runtime}", "--memory=1GiB",
             "--log-retention=512MiB", "--archive-retention=1h,512MiB"],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine did not start: exit {self.child.wait()}\n{tail(folder)}")
        self.ca = json.loads(line)["ca"]

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def wait_for_views(self):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                if self.metric("highwater_views_counted_total") > 0:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise TimeoutError("no views were counted")

    def end(self):
        """Waits for a failed write to end it, and kills it after a moment; returns whether it ended by itself."""
        try:
            code = self.child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            return False
        if code == 0:
            raise RuntimeError("the engine ended well although its disk was gone")
        return True


def tail(folder):
    with open(f"{folder}/engine.log", "rb") as log:
        return b"\n".join(log.read().splitlines()[-15:]).decode(errors="replace")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binaries", required=True)
    parser.add_argument("--cuts", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    print(f"seed {options.seed}: rerun by `tests/power/run {options.cuts} {options.seed}`", flush=True)
    chance = random.Random(options.seed)
    folder = tempfile.mkdtemp(prefix="highwater-power-")
    # Not the default action, which would leave the volume mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    volume = Volume(folder)
    engine = load = None
    try:
        data, ports = f"{volume.place}/data", (free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM))
        cpus = sorted(os.sched_getaffinity(0))
        choices = [str(cpus[0]), ",".join(map(str, cpus[:2]))]

        def start():
            return Engine(options.binaries, folder, data, ports, chance.choice(choices),
                          chance.choice(["thread", "glommio"]))

        engine = start()
        counts, began = collections.Counter(), time.monotonic()
        load = subprocess.Popen(
            [f"{options.binaries}/loadgen", "run", f"--engine=127.0.0.1:{ports[0]}", f"--ca={engine.ca}", "--rate=20000",
             f"--duration={5 + 12 * options.cuts}s", "--videos=30000", "--producers=3", "--batch=500", "--seed=3",
             f"--verify=http://127.0.0.1:{ports[1]}", f"--report={folder}/report.json"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for cut in range(1, options.cuts + 1):
            engine.wait_for_views()
            # Not to wait for anything: to meet the engine at another moment each time.
            time.sleep(chance.uniform(0, 3))
            if load.poll() is not None:
                raise RuntimeError(f"the load was over before cut {cut}: {load.stderr.read()}")
            way = chance.choice(list(WAYS))
            volume.cut(way)
            counts[way] += 1
            counts["ended by itself"] += engine.end()
            volume.unmount()
            volume.mount()
            engine = start()
        said = load.communicate(timeout=30 * options.cuts + PATIENCE_S)[1]
        if load.returncode != 0:
            raise RuntimeError(f"the load ended with {load.returncode}: {said}\n{tail(folder)}")
        with open(f"{folder}/report.json") as file:
            report = json.load(file)
        if not report["verified"] or report["views_acked"] != report["views_sent"]:
            raise RuntimeError(f"not all is well: {report}")
        engine.child.send_signal(signal.SIGTERM)
        if engine.child.wait(timeout=PATIENCE_S) != 0:
            raise RuntimeError(f"the engine did not end well\n{tail(folder)}")
        for command in ("check", "audit"):
            run(f"{options.binaries}/highwater", command, f"--data-dir={data}")
        ways = ", ".join(f"{counts[way]} with the {way}" for way in WAYS)
        print(f"{options.cuts} power cuts in {time.monotonic() - began:.0f} s ({ways}; after {counts['ended by itself']} the "
              f"engine ended by itself): {report['views_acked']} views acknowledged, every one counted once, "
              f"{report['reconnects']} reconnects, {report['retries']} batches sent again; check and audit clean")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd)} ended with {error.returncode}:\n{error.stdout}\n{error.stderr}\n{tail(folder)}")
    finally:
        for process in (engine and engine.child, load):
            if process and process.poll() is None:
                process.kill()
                process.wait()
        volume.remove()
        subprocess.run(["rm", "-rf", folder])


if __name__ == "__main__":
    main()
