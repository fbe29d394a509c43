"""What the measuring scripts share: the job, its networks, a process under /usr/bin/time."""

import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
JOB = os.path.join(ROOT, "bench", "job.toml")
BACKBONES = {
    "mbf": ["backbone.plugin=mobilefacenet", "backbone.embedding=512"],
    "y1": ["backbone.plugin=mobilefacenet", "backbone.embedding=128", "backbone.scale=1"],
}


def backbone(network):
    if network in BACKBONES:
        return BACKBONES[network]
    return ["backbone.plugin=iresnet", f"backbone.depth={network[1:]}", "backbone.embedding=512"]


def timed(command, env=None):
    """Runs under /usr/bin/time; returns stdout and the peak resident bytes."""
    with tempfile.NamedTemporaryFile("r", suffix=".time") as report:
        done = subprocess.run(["/usr/bin/time", "-v", "-o", report.name, *command], env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        text = report.read()
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stderr[-4000:]}")
    peak = re.search(r"Maximum resident set size \(kbytes\): (\d+)", text)
    return done.stdout, int(peak.group(1)) * 1024
