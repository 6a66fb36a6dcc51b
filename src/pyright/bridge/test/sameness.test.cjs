'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { Project } = require('./project.cjs');
const { BEYOND, CIRCLES, DEEP, PLAIN, circle, random, shuffled } = require('./projects.cjs');
const { Server } = require('./server.cjs');

const EVERYTHING = { documentation: true, definitions: true };
/** Requests under way at once. */
const WINDOW = 8;

/** The files in other orders. @param {string[]} files */
function orders(files) {
    return [files.toReversed(), ...[1, 2, 3, 4, 5].map((seed) => shuffled(files, seed))];
}

/** What the bridge tells of files, asked for in this order. @param {Server} server @param {string[]} files @param {number} window */
async function told(server, files, window) {
    /** @type {Map<string, string>} */
    const results = new Map();
    const left = files.values();
    const ask = async () => {
        for (const file of left) {
            const result = await server.export(file, EVERYTHING).answer;
            assert.equal(result.state, 'told', file);
            results.set(file, JSON.stringify(result));
        }
    };
    await Promise.all(Array.from({ length: window }, ask));
    return results;
}

/** @param {Map<string, string>} results @param {Map<string, string>} expected */
function assertSame(results, expected) {
    assert.deepEqual([...results.keys()].sort(), [...expected.keys()].sort());
    for (const [file, result] of results) assertEqual(file, result, expected.get(file) ?? '');
}

/** Tells of long texts only where they begin to differ. @param {string} file @param {string} result @param {string} expected */
function assertEqual(file, result, expected) {
    if (result === expected) return;
    const at = [...result].findIndex((character, index) => character !== expected[index]);
    const part = (/** @type {string} */ text) => text.slice(Math.max(0, at - 200), at + 200);
    assert.fail(`${file} is told as\n${part(result)}\nand was\n${part(expected)}`);
}

/** @type {Record<string, Record<string, string>>} */
const projects = {
    'functions that call each other across files': PLAIN,
    'a chain that is deeper than the layers go at once': DEEP,
    'stubs that import what is no stub': BEYOND,
    'circles': CIRCLES,
    'a circle that is deeper than the layers go at once': circle(30),
    'functions that call each other at random, a few': random(1),
    'functions that call each other at random, many': random(8),
};
for (const [what, files] of Object.entries(projects)) {
    test(`${what}: the answers are the same in any order, fresh or warm, and at once`, async () => {
        using project = new Project(files);
        await using warm = await Server.start(project);
        const expected = await told(warm, project.files, 1);
        for (const [index, order] of orders(project.files).entries()) {
            // One after the other and at once in turns, here and there, with different files first.
            const isAtOnce = index % 4 < 2;
            assertSame(await told(warm, order, isAtOnce ? WINDOW : 1), expected);
            if (index % 2) continue;
            await using fresh = await Server.start(project);
            assertSame(await told(fresh, order, isAtOnce ? 1 : WINDOW), expected);
        }
    });
}

/** An edit of a file: what it declares is another type, and all else stays. @param {string} text @param {number} number */
function edited(text, number) {
    return text.replace(/\breturn /g, (found) => `${found}[${number}], `) + `\nadded${number} = ${number}\n`;
}

for (const [what, files] of Object.entries(projects)) {
    test(`${what}: after each edit of a file, the answers are those of a fresh server`, async () => {
        using project = new Project(files);
        await using warm = await Server.start(project);
        await told(warm, project.files, 1);
        for (const [number, name] of shuffled(project.files, 9).slice(0, 2).entries()) {
            project.write(name, edited(project.read(name), number));
            warm.touched({ [name]: 'changed' });
            const results = await told(warm, shuffled(project.files, number), number % 2 ? WINDOW : 1);
            await using fresh = await Server.start(project);
            assertSame(results, await told(fresh, project.files, 1));
        }
    });
}

test('hovers before do not show in the answers', async () => {
    using project = new Project(CIRCLES);
    await using one = await Server.start(project);
    const expected = await told(one, project.files, 1);
    await using other = await Server.start(project);
    for (const file of project.files.toReversed()) await other.hovers(file);
    assertSame(await told(other, project.files, WINDOW), expected);
});

test('a file told by itself is told as among all', async () => {
    using project = new Project(CIRCLES);
    await using warm = await Server.start(project);
    const expected = await told(warm, project.files, 1);
    for (const file of project.files) {
        await using fresh = await Server.start(project);
        const results = await told(fresh, [file], 1);
        assertEqual(file, results.get(file) ?? '', expected.get(file) ?? '');
    }
});
