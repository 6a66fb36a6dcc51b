// The requests that the language server answers beside its own.
//
// `pyrightd/export` tells the types of one file, by an evaluator of the file's own or by the one that all share.
// `pyrightd/check` tells whether that works with this release. `pyrightd/dependents` tells which files depend on others,
// and `pyrightd/imports` what files import.
'use strict';
const { createHash } = require('node:crypto');
const { whenExported, exportsWith } = require('./bundle.cjs');
const { Answers, Documentation } = require('./answers.cjs');
const { check } = require('./check.cjs');
const { dependentsOf, importsOf } = require('./imports.cjs');
const { Layers } = require('./layers.cjs');
const { inSlices } = require('./slices.cjs');

/** JSON-RPC's code for a request that was cancelled. */
const CANCELLED = -32800;
/** Stands for the text of a place where Pyright failed. */
const FAILED = -1;
/** How often a file is begun anew where what it depends on is read again meanwhile. */
const MAX_RESTARTS = 3;

/**
 * `positions` are none where the file is to be told whole; `sha256` is of the bytes that are asked about.
 * @typedef {{ uri: string, sha256: string, positions?: [number, number][], documentation: boolean, definitions: boolean }} ExportParams
 */
/**
 * `unknown`: the project does not hold the file; `changed`: it holds other bytes. `places` has five numbers for each
 * answer: the range's start line and character, its end line and character, and the text's index in `texts`; with
 * documentation a sixth, the index of the text with it. Equal texts stand once.
 * @typedef {{ state: 'told' | 'unknown' | 'changed', texts?: string[], places?: number[], definitions?: any[][] }} ExportResult
 */

/** What was found of each program's documentation, until what was inferred holds no longer. @type {WeakMap<Layers, { generation: number, documentation: Documentation }>} */
const documentations = new WeakMap();
/** Exports under way. */
let underWay = 0;

function install() {
    whenExported('convertUriToLspUriString');
    whenExported('ResponseError');
    whenExported('LanguageServerBase', ({ LanguageServerBase: { prototype } }) => {
        const setupConnection = prototype.setupConnection;
        prototype.setupConnection = function (/** @type {any[]} */ ...args) {
            setupConnection.apply(this, args);
            const { connection } = this;
            connection.onRequest('pyrightd/export', (/** @type {ExportParams} */ params, /** @type {any} */ token) =>
                exportFile(this, params, token)
            );
            connection.onRequest('pyrightd/check', async (/** @type {{ uri: string }} */ params) => {
                const { uri, program } = await programOf(this, params.uri);
                return check(program, uri);
            });
            connection.onRequest('pyrightd/imports', (/** @type {ImportsParams} */ params, /** @type {any} */ token) =>
                tellImports(this, params, token)
            );
            connection.onRequest('pyrightd/dependents', async (/** @type {{ uris: string[] }} */ params) => {
                const { program, service } = await programOf(this, params.uris[0]);
                const { convertUriToLspUriString } = exportsWith('convertUriToLspUriString');
                const infos = params.uris.map((uri) => program.getSourceFileInfo(this.convertLspUriStringToUri(uri)));
                const dependents = dependentsOf(infos.filter((info) => info));
                return { uris: [...dependents].map(({ uri }) => convertUriToLspUriString(service.fs, uri)) };
            });
        };
    });
}

/** @param {any} server @param {string} lspUri */
async function programOf(server, lspUri) {
    const uri = server.convertLspUriStringToUri(lspUri);
    const { service } = await server.getWorkspaceForFile(uri);
    return { uri, service, program: service.backgroundAnalysisProgram.program };
}

/**
 * @param {any} server @param {ExportParams} params @param {any} token
 * @returns {Promise<ExportResult>}
 */
async function exportFile(server, params, token) {
    const { uri, service, program } = await programOf(server, params.uri);
    const layers = Layers.of(program);
    /** @type {import('./answers.cjs').Place} */
    const place = (target, range) => {
        if (!server.canNavigateToFile(target, service.fs)) return undefined;
        return { uri: exportsWith('convertUriToLspUriString').convertUriToLspUriString(service.fs, target), range };
    };
    // What Pyright does before it checks a file; what it may drop must not be in use.
    if (underWay === 0) program.handleMemoryHighUsage();
    underWay++;
    try {
        for (let restarts = 0; restarts < MAX_RESTARTS; restarts++) {
            const parsed = program.getParseResults(uri);
            if (!parsed) return { state: 'unknown' };
            if (createHash('sha256').update(parsed.text).digest('hex') !== params.sha256) return { state: 'changed' };
            const { generation } = layers;
            const isWhole = params.positions === undefined;
            const evaluator = isWhole ? layers.forFile(uri.key) : program.evaluator;
            const answers = new Answers(layers, uri, parsed, evaluator, params, documentationOf(layers), place);
            const nodes = params.positions ? answers.nodesAt(params.positions) : answers.nodes();
            let next = 0;
            const tell = () => {
                if (layers.generation !== generation) return false;
                if (next === nodes.length) return answers.finish();
                answers.tell(nodes[next++]);
                return true;
            };
            if (!(await inSlices(tell, token))) {
                server.console.info(`cancelled ${uri.fileName} after ${next} of ${nodes.length} names`);
                throw cancelled();
            }
            if (layers.generation !== generation) continue;
            const [failure] = answers.failures;
            if (failure) server.console.error(`${answers.failures.length} names of ${uri.fileName} failed: ${stackOf(failure)}`);
            return encode(answers.all, params);
        }
        return { state: 'changed' };
    } finally {
        underWay--;
    }
}

function cancelled() {
    const { ResponseError } = exportsWith('ResponseError');
    return new ResponseError(CANCELLED, 'cancelled');
}

/** @param {unknown} error */
function stackOf(error) {
    return (error instanceof Error && error.stack) || String(error);
}

/** @param {Layers} layers @returns {Documentation} */
function documentationOf(layers) {
    const { generation } = layers;
    let kept = documentations.get(layers);
    if (kept?.generation !== generation) {
        documentations.set(layers, (kept = { generation, documentation: new Documentation() }));
    }
    return kept.documentation;
}

/**
 * @param {import('./answers.cjs').Answer[]} answers @param {ExportParams} params
 * @returns {ExportResult}
 */
function encode(answers, params) {
    /** @type {Map<string, number>} */
    const indexes = new Map();
    const indexOf = (/** @type {string | undefined} */ text) => {
        if (text === undefined) return FAILED;
        let index = indexes.get(text);
        if (index === undefined) indexes.set(text, (index = indexes.size));
        return index;
    };
    const places = [];
    for (const { range, text, documented } of answers) {
        places.push(range.start.line, range.start.character, range.end.line, range.end.character, indexOf(text));
        if (params.documentation) places.push(indexOf(documented ?? text));
    }
    const definitions = params.definitions ? answers.map((answer) => answer.definitions ?? []) : undefined;
    return { state: 'told', texts: [...indexes.keys()], places, definitions };
}

/**
 * Files of which to tell; `sources` are those that stubs stand for, which the program may not hold yet.
 * @typedef {{ uris: string[], sources: string[] }} ImportsParams
 */
/**
 * What files import. Files are named by their indexes in `uris`; those that the program does not hold are left out.
 * @typedef {{ uris: string[], files: { file: number, sha256: string, names: string[], imports: number[], sources: number[] }[] }} ImportsResult
 */

/**
 * @param {any} server @param {ImportsParams} params @param {any} token
 * @returns {Promise<ImportsResult>}
 */
async function tellImports(server, { uris: asked, sources }, token) {
    const all = [...asked, ...sources];
    const { program, service } = await programOf(server, all[0]);
    const { convertUriToLspUriString } = exportsWith('convertUriToLspUriString');
    /** @type {Map<string, number>} */
    const indexes = new Map();
    /** @type {string[]} */
    const uris = [];
    const indexOf = (/** @type {any} */ uri) => {
        let index = indexes.get(uri.key);
        if (index === undefined) {
            indexes.set(uri.key, (index = uris.length));
            uris.push(convertUriToLspUriString(service.fs, uri));
        }
        return index;
    };
    /** @type {ImportsResult['files']} */
    const told = [];
    let next = 0;
    const tell = () => {
        if (next === all.length) return false;
        const uri = server.convertLspUriStringToUri(all[next++]);
        // As Pyright does to find documentation.
        if (next > asked.length && !program.getSourceFileInfo(uri)) program.addInterimFile(uri);
        const found = importsOf(program, uri);
        if (found) {
            const { sha256, names, files, sources } = found;
            told.push({ file: indexOf(uri), sha256, names, imports: files.map(indexOf), sources: sources.map(indexOf) });
        }
        return true;
    };
    // What is under way must not be dropped, as in an export.
    underWay++;
    try {
        if (!(await inSlices(tell, token))) throw cancelled();
    } finally {
        underWay--;
    }
    return { uris, files: told };
}

module.exports = { install };
