// Stands between pyrightd and the real Pyright, and does to their messages what `hooks.js` beside it says.
//
// Hooks: `start(wire)`, once; `asked(message, wire)` and `answered(message, wire)` for each message from and to
// pyrightd. A message for which a hook returns true goes no further.
'use strict';
const { spawn } = require('child_process');
const fs = require('fs');
const path = require('path');
const hooks = require('./hooks.js');

const notes = path.join(__dirname, 'notes');
const real = spawn(process.execPath, [...process.execArgv, require('./package.json').real, ...process.argv.slice(2)], {
    stdio: ['pipe', 'pipe', 'inherit'],
});
const frame = (message) => {
    const body = Buffer.from(JSON.stringify(message));
    return Buffer.concat([Buffer.from(`Content-Length: ${body.length}\r\n\r\n`), body]);
};
const methods = new Map();
const wire = {
    /** To pyrightd. */
    answer: (message) => process.stdout.write(frame({ jsonrpc: '2.0', ...message })),
    /** Bytes to pyrightd that need be no message. */
    raw: (bytes) => process.stdout.write(bytes),
    /** To Pyright. */
    ask: (message) => real.stdin.write(frame(message)),
    /** One more line for the test to read. */
    note: (kind, more = {}) => fs.appendFileSync(notes, JSON.stringify({ kind, ...more }) + '\n'),
    /** True the first time, in whatever process. */
    once: (name) => {
        try {
            fs.writeFileSync(path.join(__dirname, `once-${name}`), '', { flag: 'wx' });
            return true;
        } catch {
            return false;
        }
    },
    /** The file that tells a busy engine of a request's cancellation. */
    cancellationFile: (id) =>
        path.join(require('os').tmpdir(), 'python-languageserver-cancellation', 'pyrightd', `cancellation-${id}.tmp`),
    /** Whether a request asks about names, in whatever mode. */
    isQuestion: ({ method }) => method === 'textDocument/hover' || method === 'pyrightd/export',
    /** Whether a request asks about names of this file. */
    isAsked: (message, file) =>
        wire.isQuestion(message) && (message.params.textDocument ?? message.params).uri.endsWith(`/${file}`),
    /** The method of the request that is answered. */
    methodOf: (id) => methods.get(id),
};

function frames(stream, heard) {
    let buffer = Buffer.alloc(0);
    stream.on('data', (chunk) => {
        buffer = Buffer.concat([buffer, chunk]);
        for (;;) {
            const end = buffer.indexOf('\r\n\r\n');
            if (end < 0) return;
            const length = Number(/Content-Length: *(\d+)/i.exec(buffer.toString('latin1', 0, end))[1]);
            if (buffer.length < end + 4 + length) return;
            const message = JSON.parse(buffer.toString('utf8', end + 4, end + 4 + length));
            buffer = buffer.subarray(end + 4 + length);
            heard(message);
        }
    });
}

real.stdin.on('error', () => {});
real.on('exit', (code) => process.exit(code ?? 1));
process.stdin.on('end', () => real.stdin.end());
hooks.start?.(wire);
frames(process.stdin, (message) => {
    if (message.method && message.id !== undefined) methods.set(message.id, message.method);
    if (!hooks.asked?.(message, wire)) wire.ask(message);
});
frames(real.stdout, (message) => {
    if (!hooks.answered?.(message, wire)) process.stdout.write(frame(message));
});
