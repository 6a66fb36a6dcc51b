// Projects whose types are inferred in ways that matter to the bridge.
'use strict';

/** How many unannotated functions call each other in the chain: more than the layers infer within each other. */
const CHAIN = 60;

/** Functions that call each other across files, and none of them in a circle. @type {Record<string, string>} */
const PLAIN = {
    'base.py': `
import functools

def one():
    return 1

def pair(value=0, *rest, flag=False, **named):
    if flag:
        return value, rest
    return named

def adder(step=1):
    def add(value=0):
        return value + step
    return add

def adders():
    return [adder(), adder(2)], {"x": adder}

def identity(value):
    return value

def logged(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)
    return inner

def repeated(times=2):
    def decorate(function):
        def inner(value=1):
            return [function(value) for _ in range(times)]
        return inner
    return decorate

def fails():
    raise ValueError("never")

def recursive(depth=3):
    if depth == 0:
        return "leaf"
    return [recursive(depth - 1)]
`,
    'objects.py': `
import asyncio
import contextlib
import dataclasses
import enum
from typing import Generic, TypedDict, TypeVar, cast, overload
from base import one, pair

T = TypeVar("T")

class Colour(enum.Enum):
    RED = 1
    BLUE = "b"

class Options(TypedDict, total=False):
    name: str
    sizes: list[int]

@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5
    tags: list[str] = dataclasses.field(default_factory=list)

    def moved(self, by):
        return Point(self.x + one(), self.y, self.tags)

class Box(Generic[T]):
    def __init__(self, content: T):
        self.content = content
        self.history = []
        self.last = None

    def put(self, content):
        self.history.append(self.content)
        self.last = pair(content)
        self.content = content
        return self

    @property
    def size(self):
        return len(self.history)

    @size.setter
    def size(self, value):
        self.limit = value

    @classmethod
    def empty(cls):
        return cls(None)

    @staticmethod
    def helper(value=1):
        return value, one()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def __iter__(self):
        yield from self.history

class Child(Box[int]):
    shared = {"a": 1}

    def put(self, content):
        self.shared["b"] = content
        return super().put(content)

@overload
def parse(text: str) -> int: ...
@overload
def parse(text: bytes) -> float: ...
def parse(text):
    return int(text)

def numbers(limit=3):
    for number in range(limit):
        sent = yield number
        if sent:
            return sent
    return "done"

async def later(value=1):
    await asyncio.sleep(0)
    return value, await asyncio.gather(soon(), soon())

async def soon():
    return one()

async def stream():
    for number in range(3):
        yield number, await soon()

@contextlib.contextmanager
def opened(name="x"):
    yield Box(name)

def renamed(value):
    return cast("Point", value), cast("list[Colour]", value)
`,
    'user.py': `
from base import *
from objects import Box, Child, Colour, Options, Point, later, numbers, opened, parse, renamed, stream
import base as library, objects

total = 0
total += one()
total += parse("1")
first, rest = pair(1, flag=True), pair()
add = adder(3)
added = add(total)
many, named = adders()
picked = named["x"](5)(6)
same = identity(Point(1))
tree = recursive(2)
options: Options = {"name": "n", "sizes": [1]}
options["sizes"].append(len(options["name"]))
point = Point(1, tags=["a"]).moved(2)
point.x -= 1
box = Box(point).put(Colour.RED)
child = Child(3).put(4)
inside = box.content, box.history, box.last, box.size, child.shared
made = Child.empty().helper()

@logged
def wrapped(value=1):
    return library.one() + value

@repeated(times=3)
def often(value):
    return Point(value)

def drift(limit):
    value = None
    for index in range(limit):
        if value is None:
            value = index
        elif isinstance(value, int):
            value = str(value)
        else:
            value = [value]
    while value:
        value, total = identity(value), one()
    return value

def stops(flag):
    if flag:
        fails()
    else:
        known = 1
    return known

async def run():
    found = await later(2)
    async for number, other in stream():
        found = number, other, found
    return [item async for item in stream()], found

with opened("y") as handle:
    text = handle.content
outcome = wrapped(), often(1), drift(3), stops(False), renamed(1)
squares = {number: number ** 2 for number in numbers() if (half := number / 2)}
kind = (lambda value=1: (value, one()))(2)
match point:
    case Point(x=0, y=depth):
        shown = depth
    case Point(x, _, [tag, *others]):
        shown = x, tag, others
    case other:
        shown = other
del total
`,
    // Modules of the project that go by names of the standard library's.
    'shadowed/enum.py': 'def Enum(name="x"):\n    return [name]\n',
    'shadowed/use.py': 'from .enum import Enum\nfrom . import types\nvalues = Enum(), types.kind()\n',
    'shadowed/types.py': 'from .enum import Enum\ndef kind():\n    return Enum(), 1\n',
    'shadowed/__init__.py': '',
    'stubbed.py': 'def quick():\n    return 1\n',
    'stubbed.pyi': 'def quick() -> int: ...\n',
    'asks.py': 'from stubbed import quick\nquick()\n',
};

/** Functions that call each other through all of several files, one after the other. @type {Record<string, string>} */
const DEEP = {
    ...Object.fromEntries(
        ['even', 'odd'].map((own, parity) => {
            const other = parity === 0 ? 'odd' : 'even';
            const functions = [];
            for (let at = parity; at < CHAIN; at += 2) {
                const next = at + 1 < CHAIN ? `${other}.f${at + 1}()` : '"end"';
                functions.push(`def f${at}():\n    return ${next}\n`);
            }
            return [`${own}.py`, `import ${other}\n\n${functions.join('\n')}`];
        })
    ),
    'whole.py': 'import even, odd\nfirst = even.f0()\nmiddle = odd.f31()\nlast = odd.f59()\n',
};

/** Functions and classes that call each other in circles. @type {Record<string, string>} */
const CIRCLES = {
    'a.py': `
import b, c

def a(depth=0):
    if depth:
        return b.b(depth)
    return 1

def ping(value):
    return b.pong(value) if value else "ping"

def collect():
    return [a(), *c.gather()]

def alone():
    return b.listed()[0]

class Node:
    def __init__(self):
        self.next = b.make()
        self.value = c.c()

    def follow(self):
        return self.next.follow()
`,
    'b.py': `
import a, c

def b(depth=0):
    if depth > 1:
        return c.c(depth)
    return "b"

def pong(value):
    return a.ping(value - 1) or c.third(value)

def make():
    return c.Other()

def listed():
    return [c.c(), a.collect(), pong(1)]
`,
    'c.py': `
import a, b

def c(depth=0):
    if depth > 2:
        return a.a(depth - 1)
    return 2.5

def third(value):
    return a.ping(value), b.pong(value)

def gather():
    return a.collect() + b.listed()

class Other(a.Node):
    def follow(self):
        return a.Node() if self.value else b.make().next

    def turned(self):
        return self.follow().follow(), a.alone()
`,
    'd.py': `
import a, b, c

results = a.a(), b.b(), c.c(), a.ping(1), b.pong(2), c.third(3), a.collect(), b.listed(), c.gather()
node = a.Node().next.follow()
other = c.Other().turned()
`,
    'itself.py': `
import itself

def spin(value):
    return itself.spin(value) if value else []

class Tree:
    parent = None

    def root(self):
        return self.parent.root() if self.parent else self

    def adopt(self, child):
        child.parent = self
        self.parent = child.root()
        return spin(child), self.root()
`,
};

/**
 * A module whose stub imports one that typeshed has for older Pythons alone, and an answer in which it shows whether the
 * standard library's stubs have a layer.
 * @type {Record<string, string>}
 */
const BEYOND = {
    'beyond.py': 'import bz2, gzip\nopened = bz2.BZ2File("x"), gzip.open("x")\n',
    'tree.py': `
def tree(n, seed):
    if n == 1:
        edges, count = [], 1
        return edges, count
    if n == 2:
        edges, count = [(0, 1)], 2
        return edges, count
    j, d = seed(n)
    t1, t1_count = tree(n - j * d, seed)
    t2, t2_count = tree(d, seed)
    t12 = [(0, t2_count * i + t1_count) for i in range(j)]
    t1.extend(t12)
    for _ in range(j):
        t1.extend((n1 + t1_count, n2 + t1_count) for n1, n2 in t2)
        t1_count += t2_count
    return t1, t1_count
`,
};

/**
 * Functions that call each other through all of several files, and the last calls the first.
 * @param {number} length @returns {Record<string, string>}
 */
function circle(length) {
    const files = 4;
    const imports = `import ${Array.from({ length: files }, (_, at) => `part${at}`).join(', ')}\n\n`;
    const called = (/** @type {number} */ at) => `part${at % files}.f${at}`;
    const part = (/** @type {number} */ first) => {
        const functions = [];
        for (let at = first; at < length; at += files) {
            functions.push(`def f${at}(value=None):\n    if value:\n        return ${at}\n    return ${called((at + 1) % length)}()\n`);
        }
        return imports + functions.join('\n');
    };
    const parts = Array.from({ length: files }, (_, first) => [`part${first}.py`, part(first)]);
    const whole = Array.from({ length: files }, (_, at) => `used${at} = ${called(at)}()\n`).join('');
    return { ...Object.fromEntries(parts), 'whole.py': imports + whole };
}

/**
 * Functions of several files that call each other at random, some in circles; the same for the same seed.
 * @param {number} seed @returns {Record<string, string>}
 */
function random(seed) {
    const chance = chances(seed * 7919);
    const below = (/** @type {number} */ limit) => Math.floor(chance() * limit);
    const files = 3 + below(5);
    const perFile = 3 + below(8);
    const called = () => `m${below(files)}.f${below(perFile)}`;
    const expressions = [
        () => String(below(10)),
        () => `"${'abc'[below(3)]}"`,
        () => 'value',
        () => `${called()}()`,
        () => `${called()}(${called()}())`,
        () => `[${called()}()]`,
        () => `(${called()}(value), ${called()}())`,
        () => `{"k": ${called()}()}`,
        () => `${called()}() or ${called()}(1)`,
        () => `${called()}() if value else ${called()}("s")`,
        () => `m${below(files)}.C(value).attribute`,
        () => `m${below(files)}.C(${called()}()).method()`,
        () => called(),
        () => `lambda: ${called()}(value)`,
    ];
    const expression = () => expressions[below(expressions.length)]();
    const bodies = [
        () => `    return ${expression()}`,
        () => `    if value:\n        return ${expression()}\n    return ${expression()}`,
        () => `    result = ${expression()}\n    for item in range(3):\n        result = ${expression()}\n    return result`,
        () => `    yield ${expression()}`,
        () => `    result = None\n    while result is None:\n        result = ${expression()}\n        value = result\n    return result, value`,
        () => `    def inner(other=${expression().replace(/\bvalue\b/g, '1')}):\n        return other, ${expression()}\n    return inner`,
    ];
    const body = () => bodies[below(bodies.length)]();
    const indented = (/** @type {string} */ text) => text.replace(/^/gm, '    ');
    return Object.fromEntries(
        Array.from({ length: files }, (_, file) => {
            const imports = Array.from({ length: files }, (_, other) => `m${other}`).join(', ');
            const functions = Array.from({ length: perFile }, (_, at) => `def f${at}(value=None):\n${body()}\n`);
            const base = file > 0 && below(2) ? `(m${below(file)}.C)` : '';
            const init = `    def __init__(self, value):\n        self.attribute = ${expression()}\n`;
            const method = `    def method(self, value=0):\n${indented(body())}\n`;
            const uses = Array.from({ length: 4 }, (_, at) => `used${at} = ${called()}()\n`);
            return [`m${file}.py`, `import ${imports}\n\n${functions.join('\n')}\nclass C${base}:\n${init}\n${method}\n${uses.join('')}`];
        })
    );
}

/** Numbers from 0 to below 1; the same for the same seed. @param {number} seed @returns {() => number} */
function chances(seed) {
    let state = seed;
    return () => {
        // A linear congruence; its high bits are good enough.
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return state / 2 ** 32;
    };
}

/** The same in another order. @template T @param {T[]} items @param {number} seed @returns {T[]} */
function shuffled(items, seed) {
    const chance = chances(seed);
    return items.map((item) => ({ item, key: chance() })).sort((one, other) => one.key - other.key).map(({ item }) => item);
}

module.exports = { PLAIN, DEEP, BEYOND, CHAIN, CIRCLES, circle, random, shuffled };
