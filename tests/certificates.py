"""Certificates for servers of this host."""

from __future__ import annotations

import subprocess
from pathlib import Path


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Make a private key and a self-signed certificate, and return their files."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate), *subject]
    subprocess.run(command, check=True, capture_output=True)
    return key, certificate


def keystore(folder: Path, password: str) -> tuple[Path, Path]:
    """Make a keystore for Java, and return its file and that of its certificate."""
    key, certificate = self_signed(folder)
    store = folder / "keystore.p12"
    command = ["openssl", "pkcs12", "-export", "-inkey", str(key), "-in", str(certificate)]
    command += ["-out", str(store), "-passout", f"pass:{password}"]
    subprocess.run(command, check=True, capture_output=True)
    return store, certificate
