"""Domain parameters: the card's certificates spell them out, and OpenSC finds curves by them."""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve over a prime field; `g` is the base point as `04 x y`, the cofactor is 1."""

    named: ec.EllipticCurve
    p: int
    a: int
    b: int
    g: bytes
    n: int

    @property
    def size(self) -> int:
        """Bytes of a field element."""
        return (self.p.bit_length() + 7) // 8

    def parameters(self) -> list[tuple[int, bytes]]:
        """Return the data objects 81 … 85, without the public point."""
        numbers = [(0x81, self.p), (0x82, self.a), (0x83, self.b), (0x85, self.n)]
        objects = [(tag, value.to_bytes(self.size, "big")) for tag, value in numbers]
        return [*objects[:3], (0x84, self.g), objects[3]]


def _point(x: int, y: int, size: int) -> bytes:
    return b"\x04" + x.to_bytes(size, "big") + y.to_bytes(size, "big")


_P256 = 2**256 - 2**224 + 2**192 + 2**96 - 1
_P384 = 2**384 - 2**128 - 2**96 + 2**32 - 1

# SEC 2 (P-256, P-384), RFC 5639 (brainpool).
CURVES = (
    Curve(
        ec.SECP256R1(),
        p=_P256,
        a=_P256 - 3,
        b=0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        g=_point(
            0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
            0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
            32,
        ),
        n=0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
    Curve(
        ec.SECP384R1(),
        p=_P384,
        a=_P384 - 3,
        b=0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
        g=_point(
            0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
            0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
            48,
        ),
        n=0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    ),
    Curve(
        ec.BrainpoolP256R1(),
        p=0xA9FB57DBA1EEA9BC3E660A909D838D726E3BF623D52620282013481D1F6E5377,
        a=0x7D5A0975FC2C3057EEF67530417AFFE7FB8055C126DC5C6CE94A4B44F330B5D9,
        b=0x26DC5C6CE94A4B44F330B5D9BBD77CBF958416295CF7E1CE6BCCDC18FF8C07B6,
        g=_point(
            0x8BD2AEB9CB7E57CB2C4B482FFC81B7AFB9DE27E1E3BD23C23A4453BD9ACE3262,
            0x547EF835C3DAC4FD97F8461A14611DC9C27745132DED8E545C1D54C72F046997,
            32,
        ),
        n=0xA9FB57DBA1EEA9BC3E660A909D838D718C397AA3B561A6F7901E0E82974856A7,
    ),
)


def of(named: ec.EllipticCurve) -> Curve:
    """Return the parameters of a curve that `cryptography` names."""
    return next(curve for curve in CURVES if curve.named.name == named.name)
