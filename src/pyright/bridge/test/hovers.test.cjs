'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { Project } = require('./project.cjs');
const { CHAIN, DEEP, PLAIN } = require('./projects.cjs');
const { Server } = require('./server.cjs');

/** A declaration of each kind that has documentation, each used several times. @type {Record<string, string>} */
const DOCUMENTED = {
    'package/__init__.py': '"""What the package is for."""\n',
    'package/shapes.py': `"""Shapes, and what is made of them."""
from typing import TypedDict, overload

class Shape:
    """Something with an area."""

    sides: int = 0
    """How many sides it has."""

    def __init__(self, name, scale=1):
        """Names it.

        A second paragraph, with \`code\`.
        """
        self.name = name
        """What it is called."""
        self.scale = scale

    def area(self):
        """How large it is."""
        return 1.5

    @property
    def title(self):
        """Its name, for people."""
        return self.name

    @classmethod
    def unit(cls):
        """The smallest one."""
        return cls("unit")

    def undocumented(self):
        return self.area()

class Square(Shape):
    def area(self):
        return 2.5

    def undocumented(self):
        """Documented after all."""
        return super().undocumented()

class Cube(Square):
    """One that is made in its own way."""
    def __new__(cls, *args):
        """Makes it."""
        return super().__new__(cls)

class Measures(TypedDict):
    """What was measured."""
    width: int
    """From left to right."""
    height: int
    """From top to bottom."""

class Others(TypedDict):
    width: str
    """In words."""

@overload
def measured(what: int) -> Measures:
    """Of a number."""
    ...
@overload
def measured(what: str) -> Others:
    """Of a text."""
    ...
def measured(what):
    """Of anything."""
    return what

def drawn(shape, *, colour="red"):
    """Draws it.

    Args:
        shape: what to draw
        colour: in which colour
    """
    return shape, colour

LIMIT = 10
"""How many there can be."""
`,
    'use.py': `
import textwrap
import package
import package.shapes as shapes
from package.shapes import Cube, LIMIT, Measures, Others, Shape, Square, drawn, measured

first = Shape("a", scale=2)
second = Square("b", scale=3)
third = Shape("c"), Shape.unit(), Square.unit(), Cube("d"), Cube("e")
areas = [first.area(), second.area(), first.area() + second.area()]
titles = first.title, second.title, first.title.upper(), first.name, first.scale, second.sides
others = first.undocumented(), second.undocumented()
number, text = measured(1), measured("x")
again = measured(1)["width"], measured("x")["width"], number["height"]
sizes: Measures = {"width": 1, "height": 2}
def either(flag, one: Measures, two: Others):
    both = one if flag else two
    return both["width"], one["width"], both["width"]
drawings = drawn(first, colour="blue"), drawn(second), shapes.drawn(third), shapes.LIMIT, LIMIT
text = textwrap.dedent("x"), textwrap.dedent("y"), text.strip() if isinstance(text, str) else package
class Own(Shape):
    def area(self):
        return super().area() * 2
made = Own("x"), Own("y").area(), Own.unit().area()
`,
};

for (const [what, files] of Object.entries({ 'types of all kinds': PLAIN, 'documentation of all kinds': DOCUMENTED })) {
    test(`${what}: each name is told as its hover`, async () => {
        using project = new Project(files);
        await using server = await Server.start(project);
        let documented = 0;
        for (const file of project.files) {
            const told = await server.told(file, { documentation: true });
            const hovers = await server.hovers(file);
            assert.deepEqual(told.map(({ range, documented }) => ({ range, text: documented })), hovers, file);
            // What is told without documentation is how the hover begins.
            for (const { range, text = '', documented: whole = '' } of told) {
                assert.ok(whole.startsWith(text.trimEnd()), `${file} ${range}: ${text}\n${whole}`);
                if (whole !== text) documented++;
            }
            const plain = await server.told(file);
            assert.deepEqual(plain.map(({ range, text }) => [range, text]), told.map(({ range, text }) => [range, text]), file);
        }
        assert.ok(documented > 0, 'nothing is documented');
        assert.deepEqual(server.log.filter((line) => line.includes('failed')), []);
    });
}

test('documentation is told where it is', async () => {
    using project = new Project(DOCUMENTED);
    await using server = await Server.start(project);
    const texts = (await server.told('use.py', { documentation: true })).map(({ documented }) => documented ?? '').join('\n');
    const expected = [
        'What the package is for.', 'Shapes, and what', 'Something with an area.', 'How many sides', 'Names it.', 'What it is called.',
        'How large it is.', 'Its name, for people.', 'The smallest one.', 'Documented after all.', 'From left to right.',
        'Of a number.', 'Of a text.', 'Draws it.', 'How many there can be.', 'Takes from each line',
    ];
    assert.deepEqual(expected.filter((text) => !texts.includes(text)), []);
});

test('each name is declared where its definition is', async () => {
    for (const files of [PLAIN, DOCUMENTED]) {
        using project = new Project(files);
        await using server = await Server.start(project);
        for (const file of project.files) {
            const told = await server.told(file, { definitions: true });
            for (const { range, definitions } of told) {
                const [line, character] = range.split(/[:-]/).map(Number);
                assert.deepEqual(definitions, await server.definitions(file, { line, character }), `${file} ${range}`);
            }
            assert.ok(told.length === 0 || told.some(({ definitions }) => definitions.length > 0), file);
        }
    }
});

test('a chain deeper than Pyright looks is told to its end, and no place otherwise than by a hover that knows it', async () => {
    using project = new Project(DEEP);
    await using server = await Server.start(project);
    let known = 0;
    for (const file of project.files) {
        const told = await server.told(file);
        const hovers = new Map((await server.hovers(file)).map(({ range, text }) => [range, text]));
        for (const { range, text = '' } of told) {
            assert.doesNotMatch(text, /Unknown/, `${file} ${range}`);
            const hover = hovers.get(range) ?? '';
            if (hover.includes('Unknown')) continue;
            assert.equal(text, hover, `${file} ${range}`);
            known++;
        }
    }
    assert.ok(known > 0 && known < CHAIN * 4, `hovers know ${known} places`);
});
