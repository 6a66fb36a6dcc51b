// What files import: the modules that they name, and the files that Pyright takes for them; and who imports a file.
'use strict';
const { createHash } = require('node:crypto');

/**
 * What a file imports. A module is named as in `..package.module:symbol,other`: with leading dots where the import is
 * relative, and after the colon what is imported from it, `*` for all; those may be modules too.
 * @typedef {{ uri: any, sha256: string, names: string[], files: any[] }} Imports
 */

/**
 * Reads a file, if need be, without evaluating it.
 * @param {any} program @param {any} uri
 * @returns {Imports | undefined} none where the program does not hold the file
 */
function importsOf(program, uri) {
    const parsed = program.getParseResults(uri);
    const info = program.getSourceFileInfo(uri);
    if (!parsed || !info) return undefined;
    /** @type {Map<string, any>} */
    const files = new Map();
    const add = (/** @type {any} */ found) => found && !found.isEmpty() && files.set(found.key, found);
    for (const other of [...info.imports, info.builtinsImport, info.chainedSourceFile]) add(other?.uri);
    // A stub's documentation is in the source that it stands for.
    for (const { nonStubImportResult: source } of info.sourceFile.getImports()) {
        if (source?.isImportFound && !source.isNativeLib) add(source.resolvedUris.at(-1));
    }
    files.delete(uri.key);
    /** @type {any[]} */
    const modules = parsed.parserOutput.importedModules;
    const names = modules.map(({ leadingDots, nameParts, importedSymbols }) => {
        const symbols = importedSymbols && (importedSymbols.size > 0 ? [...importedSymbols].join(',') : '*');
        return '.'.repeat(leadingDots) + nameParts.join('.') + (symbols === undefined ? '' : `:${symbols}`);
    });
    const sha256 = createHash('sha256').update(parsed.text).digest('hex');
    return { uri, sha256, names: [...new Set(names)], files: [...files.values()] };
}

/**
 * These files and all that import them, directly or through others, as far as files were read.
 * @param {Iterable<any>} infos what a program holds of files @returns {Set<any>}
 */
function dependentsOf(infos) {
    const all = new Set(infos);
    // Those that are added meanwhile are gone through too.
    for (const { importedBy, shadowedBy, builtinsImportedBy } of all) {
        for (const other of [...importedBy, ...shadowedBy, ...(builtinsImportedBy ?? [])]) all.add(other);
    }
    return all;
}

module.exports = { importsOf, dependentsOf };
