// What files import: the modules that they name, and the files that Pyright takes for them; and who imports a file.
'use strict';
const { createHash } = require('node:crypto');

/**
 * What a file imports. A module is named as in `..package.module:symbol,other`: with leading dots where the import is
 * relative, and after the colon what is imported from it, `*` for all; those may be modules too. `sources` are those that
 * stubs stand for, of which documentation and definitions are told, but no types.
 * @typedef {{ uri: any, sha256: string, names: string[], files: any[], sources: any[] }} Imports
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
    const distinct = (/** @type {any[]} */ found) => {
        const others = found.filter((other) => other && !other.isEmpty() && other.key !== uri.key);
        return [...new Map(others.map((other) => [other.key, other])).values()];
    };
    const files = [...info.imports, info.builtinsImport, info.chainedSourceFile].map((other) => other?.uri);
    /** @type {any[]} */
    const imports = info.sourceFile.getImports();
    const sources = imports.flatMap(({ nonStubImportResult: source }) =>
        source?.isImportFound && !source.isNativeLib ? [source.resolvedUris.at(-1)] : []
    );
    const { configOptions, importResolver } = program;
    if (uri.key.endsWith('.pyi')) {
        sources.push(...importResolver.getSourceFilesFromStub(uri, configOptions.findExecEnvironment(uri), false));
    }
    /** @type {any[]} */
    const modules = parsed.parserOutput.importedModules;
    const names = modules.map(({ leadingDots, nameParts, importedSymbols }) => {
        const symbols = importedSymbols && (importedSymbols.size > 0 ? [...importedSymbols].join(',') : '*');
        return '.'.repeat(leadingDots) + nameParts.join('.') + (symbols === undefined ? '' : `:${symbols}`);
    });
    const sha256 = createHash('sha256').update(parsed.text).digest('hex');
    return { uri, sha256, names: [...new Set(names)], files: distinct(files), sources: distinct(sources) };
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
