"""What a measurement comes to: rows of the table, plots, and how much is measured."""

from dataclasses import dataclass

AT_MOST, AT_LEAST = "≤", "≥"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside what it is measured against, and what it should be.

    figure: what is held to the goal, a ratio or a number; better: AT_MOST or AT_LEAST. missed: what
    the profile shows and what was tried, told where the goal is missed.
    """

    name: str
    ours: str
    theirs: str
    figure: float
    goal: float
    better: str = AT_MOST
    unit: str = ""
    missed: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the goal is reached, at the precision that is shown."""
        figure = float(shown(self.figure))
        return figure >= self.goal if self.better == AT_LEAST else figure <= self.goal


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot: `file` without its suffix; x is logarithmic where its points are."""

    file: str
    title: str
    x: str
    y: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of the measurement found. lines: of the table of limits and of sizes."""

    rows: tuple[Row, ...] = ()
    plots: tuple[Plot, ...] = ()
    lines: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. seconds: for a figure in a round; idle: for counting wake-ups."""

    rounds: int
    seconds: float
    processes: int
    idle: float
    clients: tuple[int, ...]
    keys: tuple[int, ...]
    tokens: tuple[int, ...]
    connections: tuple[int, ...]


FULL = Scale(
    rounds=8,
    seconds=0.6,
    processes=15,
    idle=60.0,
    clients=(1, 2, 4, 8, 16, 32, 64),
    keys=(1, 10, 50, 100, 200, 500),
    tokens=(1, 2, 5, 10),
    connections=(1, 10, 100, 300, 1000),
)
QUICK = Scale(
    rounds=2,
    seconds=0.2,
    processes=2,
    idle=5.0,
    clients=(1, 8, 64),
    keys=(1, 10),
    tokens=(1, 2),
    connections=(1, 250),
)


def shown(figure: float) -> str:
    """Return a figure with three digits that count."""
    return f"{figure:.0f}" if abs(figure) >= 100 else f"{figure:.3g}"
