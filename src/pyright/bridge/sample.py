answer = int('42')

from typing import Generic, TypedDict, TypeVar

T = TypeVar("T")


class Key(TypedDict):
    name: str
    """The name."""


class Point(Generic[T]):
    """A point."""

    def __init__(self, x: T, y: int = 0):
        """Where it lies."""
        self.x = x
        self.y = y

    def moved(self, by):
        """Another point."""
        return Point(self.x, self.y + 1)

    @property
    def size(self) -> float:
        """How large."""
        return 1.5


def double(value=1):
    """Twice as much."""
    return value * 2


def first(items):
    for item in items:
        if item:
            return item, double()
    return None


key: Key = {"name": "x"}
point = Point("a").moved(double())
total = 0
total += double(3)
names = ["/".join([name, "b"]) for name in dict(a=1)]
found = first(names)
print(key["name"], point.size, found, total)
