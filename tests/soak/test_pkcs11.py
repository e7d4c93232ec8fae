"""Signatures for PKCS#11 programs by the thousand while the daemon dies: none wrong, nothing lost.

Programs keep their connections throughout; what they are told meanwhile is CKR_DEVICE_REMOVED.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hsmagent.p11.calls import Call
from hsmagent.p11.rpc import Attribute, Mechanism
from hsmagent.worker import spec
from tests.daemon.conftest import module_config
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.pkcs11 import FREELY, FaceProcess
from tests.parts.token.p11_rpc import RpcClient, Rv
from tests.parts.token.softhsm import PIN, SoftHsm

SIGNATURES = int(os.environ.get("SOAK_PKCS11_SIGNATURES", "10000"))
PROGRAMS = 8
DEATHS = (signal.SIGKILL, signal.SIGTERM)
MEMORY_MARGIN = 8 << 20


class Soak:
    """Eight programs, a person with a PIN, and an evil one with signals."""

    def __init__(self, face: FaceProcess, private: ec.EllipticCurvePrivateKey) -> None:
        self.face = face
        self.public = private.public_key()
        self.count: Counter[int] = Counter()
        self.lock = threading.Lock()
        self.failures: list[BaseException] = []

    @property
    def done(self) -> bool:
        return bool(self.failures) or self.count[spec.CKR_OK] >= SIGNATURES

    def program(self) -> None:
        try:
            client = RpcClient(self.face.socket).initialize()
            session = client.open()
            kind = Attribute(spec.CKA_CLASS, spec.CKO_PRIVATE_KEY)
            (key,) = client.find(session, kind)
            while not self.done:
                data = os.urandom(32)
                rv = spec.CKR_OK
                try:
                    mechanism = Mechanism(spec.CKM_ECDSA_SHA256)
                    client.call(Call.C_SignInit, session, mechanism, key)
                    (signature,) = client.call(Call.C_Sign, session, data, 64)
                except Rv as refused:
                    rv = refused.rv
                    if rv == spec.CKR_DEVICE_REMOVED:
                        time.sleep(0.01)
                else:
                    r, s = (
                        int.from_bytes(half, "big") for half in (signature[:32], signature[32:])
                    )
                    self.public.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
                with self.lock:
                    self.count[rv] += 1
            client.close()
        except BaseException as failure:  # noqa: BLE001 - told by the thread that asserts
            self.failures.append(failure)

    def run(self) -> None:
        threads = [threading.Thread(target=self.program) for _ in range(PROGRAMS)]
        for thread in threads:
            thread.start()
        chance = random.Random(1)
        agent = self.face.agent
        while not self.done:
            time.sleep(chance.uniform(0.2, 1.5))
            agent.signal(chance.choice(DEATHS))
            agent.process.wait(20)
            agent.start()
            agent.unlock(PIN)
        for thread in threads:
            thread.join()


def resident(face: FaceProcess) -> int:
    pages = int(Path(f"/proc/{face.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_signatures_while_the_daemon_dies(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    token = SoftHsm.create(tmp_path / "hsm")
    token.init_token("work")
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key").write_bytes(pem)
    token.import_key("work", tmp_path / "key", "01", "ec")
    agent = AgentProcess(tmp_path / "h", FREELY + module_config(token))
    face = FaceProcess(agent)
    try:
        agent.start()
        agent.unlock(PIN)
        face.start()
        soak = Soak(face, private)
        before = resident(face)
        soak.run()
        assert not soak.failures
        print(dict(soak.count), f"{(resident(face) - before) >> 10} KiB more")  # noqa: T201
        # Refused: nobody is logged in yet to the new daemon, and nobody can be asked.
        assert set(soak.count) <= {spec.CKR_OK, spec.CKR_DEVICE_REMOVED, spec.CKR_FUNCTION_CANCELED}
        assert resident(face) - before < MEMORY_MARGIN
    finally:
        face.stop()
        agent.stop()
