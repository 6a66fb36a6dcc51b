// A project of one's own in a temporary folder.
'use strict';
const { createHash } = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

/** A folder that is removed once it goes out of use. */
class Folder {
    constructor() {
        this.path = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'pyrightd-bridge-')));
    }

    /** @param {string} name below the folder @param {string} text */
    write(name, text) {
        const file = path.join(this.path, name);
        fs.mkdirSync(path.dirname(file), { recursive: true });
        fs.writeFileSync(file, text);
    }

    [Symbol.dispose]() {
        fs.rmSync(this.path, { recursive: true });
    }
}

class Project extends Folder {
    /** @param {Record<string, string>} files their texts by their names */
    constructor(files) {
        super();
        for (const [name, text] of Object.entries(files)) this.write(name, text);
    }

    /** Its Python files' names, sorted. @returns {string[]} */
    get files() {
        const names = fs.readdirSync(this.path, { recursive: true, encoding: 'utf8' });
        return names.filter((name) => name.endsWith('.py')).sort();
    }

    /** @param {string} name */
    read(name) {
        return fs.readFileSync(path.join(this.path, name), 'utf8');
    }

    /** @param {string} [name] of a file; without, the folder's own */
    uri(name = '') {
        return pathToFileURL(path.join(this.path, name)).href;
    }

    /** @param {string} name */
    digest(name) {
        return createHash('sha256').update(this.read(name)).digest('hex');
    }
}

module.exports = { Folder, Project };
