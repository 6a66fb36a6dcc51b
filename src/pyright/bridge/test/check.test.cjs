'use strict';
const assert = require('node:assert/strict');
const path = require('node:path');
const { test } = require('node:test');
const { Project } = require('./project.cjs');
const { Server } = require('./server.cjs');

const FILES = { 'a.py': 'number = 1\n' };

test('the bridge works with the pinned release', async () => {
    using project = new Project(FILES);
    await using server = await Server.start(project);
    assert.equal(server.check.reason, undefined);
    assert.equal(server.check.works, true);
});

/** How a release can be another, and what the bridge then says of itself. @type {Record<string, RegExp>} */
const faults = {
    'missing-export': /exports no convertHoverResults/,
    'other-hover': /hover says .*And more.*, the bridge /,
    'other-cache': /keeps its types elsewhere/,
};
for (const [fault, reason] of Object.entries(faults)) {
    test(`${fault}: the bridge says why it does not work, and hovers do`, async () => {
        using project = new Project(FILES);
        await using server = await Server.start(project, [path.join(__dirname, 'faults', `${fault}.cjs`)]);
        assert.equal(server.check.works, false);
        assert.match(server.check.reason ?? '', reason);
        const [hover] = await server.hovers('a.py');
        assert.match(hover.text, /\(variable\) number: Literal\[1\]/);
    });
}
