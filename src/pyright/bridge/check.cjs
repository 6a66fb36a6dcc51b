// Whether all that the bridge relies on is there and works, tried on a sample against Pyright's own hover.
'use strict';
const { exportsWith } = require('./bundle.cjs');
const { Answers, Documentation } = require('./answers.cjs');
const { Layers, NAME } = require('./layers.cjs');

const NEVER_CANCELLED = { isCancellationRequested: false, onCancellationRequested: () => ({ dispose() {} }) };
/** The sample's functions without a return annotation that others in it call. */
const INFERRED = 2;

/**
 * Tells the sample's names in each way, and compares.
 * @param {any} program
 * @param {any} uri of the sample, which is open
 * @returns {{ works: boolean, reason?: string, names?: number }}
 */
function check(program, uri) {
    try {
        const names = compare(program, uri);
        return { works: true, names };
    } catch (error) {
        return { works: false, reason: error instanceof Error ? error.message : String(error) };
    }
}

/** @param {any} program @param {any} uri */
function compare(program, uri) {
    const { HoverProvider } = exportsWith('HoverProvider');
    const parsed = program.getParseResults(uri);
    if (!parsed) throw new Error('the sample was not read');
    const layers = Layers.of(program);
    const details = { documentation: true, definitions: true };
    const answers = (/** @type {any} */ evaluator) => {
        const place = (/** @type {any} */ target, /** @type {any} */ range) => ({ uri: String(target), range });
        return new Answers(layers, uri, parsed, evaluator, details, new Documentation(), place);
    };
    const nodes = answers(program.evaluator).nodes();
    layers.locate(nodes.filter((node) => node.nodeType === NAME));

    const { convertOffsetToPosition } = exportsWith('convertOffsetToPosition');
    const { lines } = parsed.tokenizerOutput;
    const hovers = nodes.map((node) => {
        const position = convertOffsetToPosition(node.start, lines);
        return new HoverProvider(program, uri, position, 'markdown', NEVER_CANCELLED).getHover()?.contents.value;
    });
    const { statistics } = layers;
    const before = { ...statistics };
    // Without a file of its own, the evaluator takes all functions' returns from the layer.
    for (const [evaluator, way] of [[program.evaluator, 'shared'], [layers.forFile(undefined), 'isolated']]) {
        const told = answers(evaluator);
        for (const node of nodes) told.tell(node);
        while (told.finish());
        if (told.failures.length > 0) throw told.failures[0];
        const texts = told.all.map((answer) => answer.documented);
        const expected = hovers.filter((hover) => hover !== undefined);
        if (expected.length === 0) throw new Error('hover says nothing of the sample');
        const at = expected.findIndex((hover, index) => hover !== texts[index]);
        if (at >= 0 || texts.length !== expected.length) {
            throw new Error(`${way}: hover says ${JSON.stringify(expected[at])}, the bridge ${JSON.stringify(texts[at])}`);
        }
        if (!told.all.some((answer) => answer.definitions?.length)) throw new Error(`${way}: no definition was found`);
    }
    if (statistics.standard === before.standard) throw new Error("the standard library's stubs have no layer");
    if (statistics.inferred - before.inferred < INFERRED) throw new Error('functions have no layer');
    return nodes.length;
}

module.exports = { check };
