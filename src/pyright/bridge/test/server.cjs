// A real language server with the bridge loaded before it, and a client of it.
'use strict';
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const path = require('node:path');
const { Folder } = require('./project.cjs');

/** @import { Project } from './project.cjs' */
/** @import { ExportResult } from '../requests.cjs' */

const MAIN = path.join(__dirname, '../main.cjs');
const SAMPLE = fs.readFileSync(path.join(__dirname, '../sample.py'), 'utf8');
/** Where Pyright looks for cancellation files, below the temporary folder. */
const CANCELLATION = 'python-languageserver-cancellation/test';

/** @typedef {{ line: number, character: number }} Position */
/** @typedef {{ documentation: boolean, definitions: boolean, positions?: [number, number][] }} Details */
/**
 * A name's hover without documentation, the same with it, and where the name is declared.
 * @typedef {{ range: string, text: string | undefined, documented: string | undefined, definitions: string[] }} Told
 */

/** @returns {string} the folder of the pinned packages, which `run` installs */
function engine() {
    const folder = process.env.PYRIGHTD_TEST_ENGINE;
    if (!folder) throw new Error('start the tests by test/run');
    return path.join(folder, 'node_modules');
}

/**
 * A program that stands in for Python, as pyrightd's own does, and the folder of the standard library that it names: its
 * sources are empty, but for one. Without sources, each hover takes long. All servers share them, since their paths are
 * among the answers.
 */
class StandIn extends Folder {
    constructor() {
        super();
        const stubs = path.join(engine(), 'pyright/dist/typeshed-fallback/stdlib');
        for (const name of fs.readdirSync(stubs, { recursive: true, encoding: 'utf8' })) {
            if (name.endsWith('.pyi')) this.write(path.join('lib', name.slice(0, -1)), '');
        }
        this.write('lib/textwrap.py', 'def dedent(text):\n    """Takes from each line what all begin with."""\n');
        const answer = JSON.stringify({ path: [path.join(this.path, 'lib')], prefix: '' });
        const script = `#!/bin/sh\ncase "$*" in *version_info*) exit 1 ;; esac\ncat <<'END'\n${answer}\nEND\n`;
        fs.writeFileSync(this.python, script, { mode: 0o755 });
        process.on('exit', () => this[Symbol.dispose]());
    }

    get python() {
        return path.join(this.path, 'python');
    }
}

/** @type {StandIn | undefined} */
let onlyStandIn;
const standIn = () => (onlyStandIn ??= new StandIn());

/** A JSON-RPC error. */
class Refused extends Error {
    /** @param {{ code: number, message: string }} error */
    constructor({ code, message }) {
        super(`${code}: ${message}`);
        this.code = code;
    }
}

/** The language server, ended once it goes out of use. */
class Server {
    /** What it said by `window/logMessage`. @type {string[]} */
    log = [];
    /** Whether the bridge works, as it says itself. @type {{ works: boolean, reason?: string }} */
    check = { works: false };
    /** Ids of what was answered, in that order. @type {number[]} */
    answered = [];
    #scratch = new Folder();
    /** @type {Map<number, { resolve: (result: any) => void, reject: (error: Error) => void }>} */
    #pending = new Map();
    /** Who waits for something to be logged. @type {Set<() => void>} */
    #listeners = new Set();
    #received = Buffer.alloc(0);
    #lastId = 0;

    /** @param {Project} project @param {string[]} preloaded scripts that Node loads before the bridge */
    constructor(project, preloaded) {
        this.project = project;
        fs.mkdirSync(path.join(this.#scratch.path, CANCELLATION), { recursive: true });
        const scripts = [...preloaded, MAIN].flatMap((script) => ['--require', script]);
        const main = path.join(engine(), 'pyright/langserver.index.js');
        const flags = ['--stack-size=3900', ...scripts, main, '--stdio', `--cancellationReceive=file:${path.basename(CANCELLATION)}`];
        this.process = spawn(process.execPath, flags, {
            env: { PATH: process.env.PATH, TMPDIR: this.#scratch.path, HOME: this.#scratch.path },
            stdio: ['pipe', 'pipe', 'inherit'],
        });
        this.process.stdout.on('data', (/** @type {Buffer} */ data) => this.#receive(data));
        // What it is sent after its end is lost; who waits for an answer is told by the end itself.
        this.process.stdin.on('error', () => {});
        this.process.on('exit', () => {
            for (const { reject } of this.#pending.values()) reject(new Error('the language server ended'));
        });
    }

    /** One that has found the project's files, and tried the bridge, as pyrightd has it do. @param {Project} project @param {string[]} preloaded @returns {Promise<Server>} */
    static async start(project, preloaded = []) {
        const server = new Server(project, preloaded);
        const uri = project.uri();
        await server.ask('initialize', {
            processId: null,
            rootUri: uri,
            workspaceFolders: [{ uri, name: 'project' }],
            capabilities: {
                workspace: { configuration: true, workspaceFolders: true, didChangeWatchedFiles: { dynamicRegistration: true } },
                textDocument: { hover: { contentFormat: ['markdown'] }, diagnostic: { dynamicRegistration: true } },
            },
        }).answer;
        server.tell('initialized', {});
        await server.logged(/^(Found \d+ source file|No source files found)/);
        server.check = await server.#tryBridge();
        return server;
    }

    async [Symbol.asyncDispose]() {
        const exit = once(this.process, 'exit');
        this.process.kill('SIGKILL');
        await exit;
        this.#scratch[Symbol.dispose]();
    }

    /** A request, which can be cancelled by its id. @param {string} method @param {any} params @returns {{ id: number, answer: Promise<any> }} */
    ask(method, params) {
        const id = ++this.#lastId;
        /** @type {Promise<any>} */
        const answer = new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject }));
        this.#send({ id, method, params });
        return { id, answer };
    }

    /** A notification. @param {string} method @param {any} params */
    tell(method, params) {
        this.#send({ method, params });
    }

    /** Cancels a request in the way that a busy server sees. @param {number} id */
    cancelByFile(id) {
        fs.writeFileSync(path.join(this.#scratch.path, CANCELLATION, `cancellation-${id}.tmp`), '');
    }

    /** The first line of the log, from the given one on, that matches. @param {RegExp} pattern @returns {Promise<string>} */
    async logged(pattern, from = 0) {
        for (;;) {
            const line = this.log.slice(from).find((line) => pattern.test(line));
            if (line !== undefined) return line;
            await new Promise((/** @type {(value?: undefined) => void} */ resolve) => this.#listeners.add(resolve));
        }
    }

    /** Says that files of the project came, changed or went. @param {Record<string, 'created' | 'changed' | 'deleted'>} files */
    touched(files) {
        const types = { created: 1, changed: 2, deleted: 3 };
        const changes = Object.entries(files).map(([name, what]) => ({ uri: this.project.uri(name), type: types[what] }));
        this.tell('workspace/didChangeWatchedFiles', { changes });
    }

    async #tryBridge() {
        const uri = this.project.uri('.sample.py');
        this.tell('textDocument/didOpen', { textDocument: { uri, languageId: 'python', version: 1, text: SAMPLE } });
        const result = await this.ask('pyrightd/check', { uri }).answer;
        this.tell('textDocument/didClose', { textDocument: { uri } });
        return result;
    }

    /** The bridge's answer about a file, as it is. @param {string} name @param {Partial<Details>} details */
    export(name, details = {}) {
        const all = { documentation: false, definitions: false, ...details };
        return this.ask('pyrightd/export', { uri: this.project.uri(name), sha256: this.project.digest(name), ...all });
    }

    /** What the bridge tells of a file's names. @param {string} name @param {Partial<Details>} details @returns {Promise<Told[]>} */
    async told(name, details = {}) {
        /** @type {ExportResult} */
        const { state, texts = [], places = [], definitions } = await this.export(name, details).answer;
        if (state !== 'told') throw new Error(`${name} is ${state}`);
        const told = [];
        const numbers = details.documentation ? 6 : 5;
        for (let at = 0; at < places.length; at += numbers) {
            const [startLine, start, endLine, end, text, documented = -1] = places.slice(at, at + numbers);
            const range = rangeText({ start: { line: startLine, character: start }, end: { line: endLine, character: end } });
            const found = definitions?.[at / numbers] ?? [];
            told.push({ range, text: texts[text], documented: texts[documented], definitions: found.map(placeText).sort() });
        }
        return told;
    }

    /** What hovers say of a file's words, in strings and comments too. @param {string} name @returns {Promise<{ range: string, text: string }[]>} */
    async hovers(name) {
        /** @type {Map<string, string>} */
        const found = new Map();
        for (const position of words(this.project.read(name))) {
            const hover = await this.ask('textDocument/hover', { textDocument: { uri: this.project.uri(name) }, position }).answer;
            if (hover) found.set(rangeText(hover.range), hover.contents.value);
        }
        return [...found].map(([range, text]) => ({ range, text }));
    }

    /** Where the name at a place is declared. @param {string} name @param {Position} position @returns {Promise<string[]>} */
    async definitions(name, position) {
        const params = { textDocument: { uri: this.project.uri(name) }, position };
        return ((await this.ask('textDocument/definition', params).answer) ?? []).map(placeText).sort();
    }

    /** @param {object} message */
    #send(message) {
        const text = JSON.stringify({ jsonrpc: '2.0', ...message });
        this.process.stdin.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
    }

    /** @param {Buffer} data */
    #receive(data) {
        this.#received = Buffer.concat([this.#received, data]);
        for (;;) {
            const header = this.#received.indexOf('\r\n\r\n');
            if (header < 0) return;
            const [, length] = /Content-Length: (\d+)/i.exec(this.#received.toString('latin1', 0, header)) ?? [];
            const end = header + 4 + Number(length);
            if (this.#received.length < end) return;
            const text = this.#received.toString('utf8', header + 4, end);
            this.#received = this.#received.subarray(end);
            this.#heard(JSON.parse(text));
        }
    }

    /** @param {any} message */
    #heard({ id, method, params, result, error }) {
        if (method === 'window/logMessage') {
            this.log.push(params.message);
            for (const resolve of this.#listeners) resolve();
            this.#listeners.clear();
        } else if (method === 'workspace/configuration') {
            this.#send({ id, result: params.items.map((/** @type {{ section?: string }} */ item) => this.#settings(item.section)) });
        } else if (method !== undefined && id !== undefined) {
            this.#send({ id, result: null });
        } else if (method === undefined) {
            const waiting = this.#pending.get(id);
            this.#pending.delete(id);
            this.answered.push(id);
            if (error) waiting?.reject(new Refused(error));
            else waiting?.resolve(result);
        }
    }

    /** @param {string | undefined} section */
    #settings(section) {
        if (section !== 'python') return {};
        return { pythonPath: standIn().python, analysis: { diagnosticMode: 'openFilesOnly', logLevel: 'Information' } };
    }
}

/** @param {{ start: Position, end: Position }} range */
function rangeText({ start, end }) {
    return `${start.line}:${start.character}-${end.line}:${end.character}`;
}

/** @param {{ uri: string, range: { start: Position, end: Position } }} place */
function placeText({ uri, range }) {
    return `${uri} ${rangeText(range)}`;
}

/** Where a text's words begin. @param {string} text @returns {Position[]} */
function words(text) {
    return text.split('\n').flatMap((content, line) =>
        [...content.matchAll(/[\p{L}_][\p{L}\p{N}_]*/gu)].map(({ index }) => ({ line, character: index }))
    );
}

module.exports = { Server, Refused, words };
