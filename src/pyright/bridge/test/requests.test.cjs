'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { Project } = require('./project.cjs');
const { Refused, Server } = require('./server.cjs');

const CANCELLED = -32800;
const SMALL = 'number = 1\n';
/** Takes many slices. */
const BIG = Array.from({ length: 5000 }, (_, at) => `def f${at}(value=${at}):\n    return [value, f${Math.max(at - 1, 0)}]\n`).join('');

/** What is told of a file's last name. @param {Server} server @param {string} file */
async function lastOf(server, file) {
    return (await server.told(file)).at(-1)?.text;
}

/** The files that depend on this one, as the bridge says. @param {Server} server @param {string} file @returns {Promise<string[]>} */
async function dependents(server, file) {
    const { uris } = await server.ask('pyrightd/dependents', { uris: [server.project.uri(file)] }).answer;
    const root = `${server.project.uri()}/`;
    return uris.filter((/** @type {string} */ uri) => uri.startsWith(root)).map((/** @type {string} */ uri) => uri.slice(root.length)).sort();
}

test('other bytes than the engine holds are told to be', async () => {
    using project = new Project({ 'a.py': SMALL });
    await using server = await Server.start(project);
    const sha256 = '0'.repeat(64);
    const params = { uri: project.uri('a.py'), sha256, documentation: false, definitions: false };
    assert.deepEqual(await server.ask('pyrightd/export', params).answer, { state: 'changed' });
    assert.equal((await server.told('a.py')).length, 1);
});

test('a file that the project does not hold is told to be', async () => {
    using project = new Project({ 'a.py': SMALL, 'node_modules/b.py': SMALL });
    await using server = await Server.start(project);
    assert.deepEqual(await server.export('node_modules/b.py').answer, { state: 'unknown' });
});

test('some places are told as in the whole file, and others not at all', async () => {
    using project = new Project({ 'a.py': 'import os\nnumber = 1\ntext = str(number)\n' });
    await using server = await Server.start(project);
    const all = await server.told('a.py');
    const some = await server.told('a.py', { positions: [[2, 12], [1, 0], [1, 9], [9, 9]] });
    assert.deepEqual(some, [all.find(({ range }) => range === '2:11-2:17'), all.find(({ range }) => range === '1:0-1:6')]);
});

test('after a file was edited, it and what imports it are told anew', async () => {
    using project = new Project({
        'base.py': 'def base():\n    return 1\n',
        'middle.py': 'import base\ndef middle():\n    return [base.base()]\n',
        'top.py': 'import middle\ntop = middle.middle()\n',
        'apart.py': 'apart = "x"\n',
    });
    await using server = await Server.start(project);
    for (const file of project.files) await server.told(file);
    assert.match((await lastOf(server, 'top.py')) ?? '', /list\[int\]/);
    assert.deepEqual(await dependents(server, 'base.py'), ['base.py', 'middle.py', 'top.py']);
    assert.deepEqual(await dependents(server, 'apart.py'), ['apart.py']);

    const apart = await server.told('apart.py');
    project.write('base.py', 'def base():\n    return "one"\n');
    server.touched({ 'base.py': 'changed' });
    assert.match((await server.told('base.py'))[0].text ?? '', /Literal\['one'\]|str/);
    assert.match((await server.told('middle.py'))[1].text ?? '', /list\[str\]/);
    assert.match((await lastOf(server, 'top.py')) ?? '', /list\[str\]/);
    assert.deepEqual(await server.told('apart.py'), apart);
});

test('a file that is edited while it is told is told to have changed', async () => {
    using project = new Project({ 'big.py': BIG });
    await using server = await Server.start(project);
    const big = server.export('big.py');
    project.write('big.py', SMALL);
    server.touched({ 'big.py': 'changed' });
    assert.equal((await big.answer).state, 'changed');
    assert.equal((await server.told('big.py')).length, 1);
});

/** How a request is cancelled. @type {Record<string, (server: Server, id: number) => void>} */
const ways = {
    'by a message': (server, id) => server.tell('$/cancelRequest', { id }),
    'by a file': (server, id) => server.cancelByFile(id),
};
for (const [way, cancel] of Object.entries(ways)) {
    test(`a big file lets others have their turn, and stops where it is cancelled ${way}`, async () => {
        using project = new Project({ 'big.py': BIG, 'small.py': SMALL });
        await using server = await Server.start(project);
        const big = server.export('big.py');
        const refused = assert.rejects(big.answer, (error) => error instanceof Refused && error.code === CANCELLED);
        await server.told('small.py');
        assert.ok(!server.answered.includes(big.id), 'the big file was answered before the small one');
        cancel(server, big.id);
        await refused;
        const line = await server.logged(/cancelled big\.py/);
        const [, done, all] = /cancelled big\.py after (\d+) of (\d+) names/.exec(line) ?? [];
        assert.ok(Number(done) > 0 && Number(done) < Number(all), line);
        // What was begun does not harm what comes after.
        assert.equal((await server.told('small.py')).length, 1);
    });
}

test('what files import is told, by name and by file', async () => {
    using project = new Project({
        'package/__init__.py': '',
        'package/a.py': 'import os.path\nfrom . import b, missing\nfrom ..top import *\nfrom package.b import number\n',
        'package/b.py': 'number = 1\n',
        'package/b.pyi': 'number: int\n',
        'top.py': '',
    });
    await using server = await Server.start(project);
    const names = ['package/a.py', 'package/b.py', 'gone.py'];
    const { uris, files } = await server.ask('pyrightd/imports', { uris: names.map((name) => project.uri(name)), sources: [] }).answer;
    const root = `${project.uri()}/`;
    const [a, b] = files.map((/** @type {any} */ file) => ({
        ...file,
        file: uris[file.file].slice(root.length),
        imports: file.imports.map((/** @type {number} */ index) => uris[index]),
        sources: file.sources.map((/** @type {number} */ index) => uris[index]),
    }));
    assert.equal(files.length, 2);
    assert.equal(a.file, 'package/a.py');
    assert.equal(a.sha256, project.digest('package/a.py'));
    assert.deepEqual(a.names.sort(), ['..top:*', '.:b,missing', 'os', 'os.path', 'package.b:number']);
    const own = a.imports.filter((/** @type {string} */ uri) => uri.startsWith(root)).map((/** @type {string} */ uri) => uri.slice(root.length));
    assert.deepEqual(own.sort(), ['package/__init__.py', 'package/b.pyi', 'top.py']);
    assert.deepEqual(a.sources.filter((/** @type {string} */ uri) => uri.startsWith(root)), [project.uri('package/b.py')]);
    for (const stub of ['builtins', 'os/__init__', 'os/path']) {
        assert.ok(a.imports.some((/** @type {string} */ uri) => uri.endsWith(`typeshed-fallback/stdlib/${stub}.pyi`)), stub);
    }
    assert.equal(b.file, 'package/b.py');
    assert.deepEqual(b.names, []);
});
