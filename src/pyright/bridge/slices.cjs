// Work in slices, between which the event loop runs, so that other requests and cancellations get their turn.
'use strict';

/** How long a slice goes on before others get their turn, in milliseconds. */
const SLICE = 25;

/** @returns {Promise<void>} after what waits in the event loop has run */
const othersTurn = () => new Promise((resolve) => setImmediate(resolve));

/**
 * Takes steps until one says that there is none left, or the token is cancelled.
 * @param {() => boolean} step does a little, and says whether there is more to do
 * @param {{ readonly isCancellationRequested: boolean }} token
 * @param {{ now: () => number, pause: () => Promise<void> }} [clock] for tests
 * @returns {Promise<boolean>} whether all was done; false where it was cancelled
 */
async function inSlices(step, token, clock = { now: () => performance.now(), pause: othersTurn }) {
    for (;;) {
        // Asked once a slice: each time, Pyright looks for a file.
        if (token.isCancellationRequested) return false;
        const end = clock.now() + SLICE;
        do {
            if (!step()) return true;
        } while (clock.now() < end);
        await clock.pause();
    }
}

module.exports = { inSlices, SLICE };
