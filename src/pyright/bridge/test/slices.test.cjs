'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { inSlices, SLICE } = require('../slices.cjs');

/**
 * A clock that stands still but for `pass`, and notes each pause among what happened.
 * @param {(string | number)[]} happened
 */
function fakeClock(happened) {
    let now = 1000;
    return {
        now: () => now,
        pause: async () => void happened.push('pause'),
        pass: (/** @type {number} */ milliseconds) => void (now += milliseconds),
    };
}

/** One that a test cancels. */
const token = () => ({ isCancellationRequested: false });

test('a slice ends once its time is over, after the step under way', async () => {
    /** @type {(string | number)[]} */
    const happened = [];
    const clock = fakeClock(happened);
    let steps = 0;
    const step = () => {
        happened.push(++steps);
        clock.pass(SLICE * 0.4);
        return steps < 7;
    };
    assert.equal(await inSlices(step, token(), clock), true);
    assert.deepEqual(happened, [1, 2, 3, 'pause', 4, 5, 6, 'pause', 7]);
});

test('a slice is short', () => {
    assert.equal(SLICE, 25);
});

test('steps that take no time are done in one slice, in order', async () => {
    /** @type {(string | number)[]} */
    const happened = [];
    let steps = 0;
    const step = () => happened.push(++steps) < 1000;
    assert.equal(await inSlices(step, token(), fakeClock(happened)), true);
    assert.deepEqual(happened, Array.from({ length: 1000 }, (_, index) => index + 1));
});

test('a step that takes long is followed by a pause', async () => {
    /** @type {(string | number)[]} */
    const happened = [];
    const clock = fakeClock(happened);
    const step = () => {
        clock.pass(SLICE * 100);
        return happened.push('step') < 5;
    };
    assert.equal(await inSlices(step, token(), clock), true);
    assert.deepEqual(happened, ['step', 'pause', 'step', 'pause', 'step']);
});

test('what is cancelled stops after its slice, and takes no step more', async () => {
    /** @type {(string | number)[]} */
    const happened = [];
    const clock = fakeClock(happened);
    const cancelled = token();
    const step = () => {
        clock.pass(SLICE * 0.4);
        if (happened.push('step') === 2) cancelled.isCancellationRequested = true;
        return true;
    };
    assert.equal(await inSlices(step, cancelled, clock), false);
    assert.deepEqual(happened, ['step', 'step', 'step', 'pause']);
});

test('what is cancelled before it begins does nothing', async () => {
    const step = () => assert.fail('a step was taken');
    assert.equal(await inSlices(step, { isCancellationRequested: true }, fakeClock([])), false);
});

test('what a step throws ends the work', async () => {
    const step = () => {
        throw new Error('broken');
    };
    await assert.rejects(inSlices(step, token(), fakeClock([])), /broken/);
});

test('others get their turn in a pause', async () => {
    /** @type {string[]} */
    const happened = [];
    const other = new Promise((/** @type {(value?: undefined) => void} */ resolve) =>
        setImmediate(() => {
            happened.push('other');
            resolve();
        })
    );
    const step = () => {
        const end = performance.now() + SLICE;
        while (performance.now() < end);
        return happened.push('step') < 3;
    };
    assert.equal(await inSlices(step, token()), true);
    await other;
    assert.deepEqual(happened.slice(0, 2), ['step', 'other']);
});
