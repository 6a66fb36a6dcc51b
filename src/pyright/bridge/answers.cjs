// What Pyright's hover says of a file's names, with documentation and definitions where they are asked for.
//
// A hover looks up the documentation behind a name each time. Here that is put off until all types are told, and then
// done once for each declaration.
'use strict';
const { whenExported, exportsWith } = require('./bundle.cjs');
const { Layers, NAME } = require('./layers.cjs');

/** Numbers of `ParseNodeType` and `TypeCategory`. */
const AUGMENTED_ASSIGNMENT = 5, STRING = 49, STRING_LIST = 48, STATEMENT_LIST = 47;
const FUNCTION_TYPE = 4, OVERLOADED_TYPE = 5, CLASS_TYPE = 6, MODULE_TYPE = 7;

const NEVER_CANCELLED = { isCancellationRequested: false, onCancellationRequested: () => ({ dispose() {} }) };

/**
 * What to tell of each name beside its type.
 * @typedef {{ documentation: boolean, definitions: boolean }} Details
 */
/**
 * What is told of a place: the hover's Markdown without documentation, that with it, and where the name is declared.
 * There is no text where Pyright failed.
 * @typedef {{ range: any, text?: string, documented?: string, definitions?: { uri: string, range: any }[] }} Answer
 */
/**
 * Documentation to be added to a hover's parts; `isElse` where only if that before it added nothing.
 * @typedef {{ add: (parts: any[]) => boolean, isElse: boolean }} Deferred
 */
/** @typedef {(uri: any, range: any) => { uri: string, range: any } | undefined} Place Makes a definition of a place. */

/** The node that the hover under way is about, where that is known without looking for it. @type {any} */
let known;
/** The hover under way, if documentation is put off. @type {Answers | undefined} */
let active;

function install() {
    for (const name of ['HoverProvider', 'DefinitionProvider', 'convertHoverResults', 'ParseTreeWalker']) whenExported(name);
    for (const name of ['convertOffsetToPosition', 'convertPositionToOffset', 'addDocumentationResultsPart']) whenExported(name);
    for (const name of ['OverloadedType', 'getStringAnnotation', 'getParserStringAnnotation']) whenExported(name);
    whenExported('findNodeByOffset', (exports) => {
        const find = exports.findNodeByOffset;
        replace(exports, 'findNodeByOffset', (/** @type {any[]} */ ...args) => known ?? find(...args));
    });
    whenExported('getConstructorDocInfo', (exports) => {
        const find = exports.getConstructorDocInfo;
        replace(exports, 'getConstructorDocInfo', (/** @type {any[]} */ ...args) => {
            if (!active) return find(...args);
            active.deferConstructor(find, args);
            return undefined;
        });
    });
}

/** @param {any} exports @param {string} name @param {(...args: any[]) => any} replacement */
function replace(exports, name, replacement) {
    Object.defineProperty(exports, name, { value: replacement, configurable: true, enumerable: true, writable: true });
}

/** The hover provider with what takes its time put off; made once its base is there. @type {any} */
let DeferringHover;

function deferringHover() {
    return (DeferringHover ??= class extends exportsWith('HoverProvider').HoverProvider {
        _addDocumentationPartForType(/** @type {any[]} */ ...args) {
            if (!active) return super._addDocumentationPartForType(...args);
            active.defer(this, super._addDocumentationPartForType, args);
            // So that what stands in for it is put off too.
            return false;
        }
        _addDocumentationForSynthesizedTypes(/** @type {any[]} */ parts, /** @type {any[]} */ ...args) {
            const add = () => (super._addDocumentationForSynthesizedTypes(parts, ...args), true);
            if (active) active.deferred.push({ add, isElse: true });
            else add();
        }
    });
}

/** What is said of one file's names by one evaluator. */
class Answers {
    /** Of the hover under way. @type {Deferred[]} */
    deferred = [];
    /** What Pyright threw. @type {unknown[]} */
    failures = [];
    /** @type {any} */
    #hover;
    /** @type {any[]} */
    #lines;
    /** @type {Answer[]} */
    #answers = [];
    /** What is left to do for answers. @type {{ node: any, answer: Answer, results: any, deferred: Deferred[] }[]} */
    #unfinished = [];

    /**
     * @param {Layers} layers
     * @param {any} uri
     * @param {any} parsed the file's parse results
     * @param {any} evaluator
     * @param {Details} details
     * @param {Documentation} documentation
     * @param {Place} place
     */
    constructor(layers, uri, parsed, evaluator, details, documentation, place) {
        const { program } = layers;
        this.layers = layers;
        this.place = place;
        this.evaluator = evaluator;
        this.details = details;
        this.documentation = documentation;
        // Read once: on a file that no client has opened, this getter reads the whole file each time.
        const tokenizerOutput = parsed.tokenizerOutput;
        this.#lines = tokenizerOutput.lines;
        this.parsed = { parserOutput: parsed.parserOutput, text: parsed.text, tokenizerOutput };
        const position = { line: 0, character: 0 };
        this.#hover = layers.within(layers.documentation, () =>
            // Its source mapper keeps the evaluator of this moment.
            new (deferringHover())(program, uri, position, 'markdown', NEVER_CANCELLED)
        );
        this.#hover._parseResults = this.parsed;
        documentation.remember(this.#hover._sourceMapper);
    }

    /** The file's names, and its strings that can be keys, in source order. @returns {any[]} */
    nodes() {
        /** @type {any[]} */
        const nodes = [];
        const { ParseTreeWalker } = exportsWith('ParseTreeWalker');
        new (class extends ParseTreeWalker {
            visitNode(/** @type {any} */ node) {
                if (node.nodeType === NAME) {
                    const { parent } = node;
                    // Of `x += 1`, the hover tells what x is afterwards, which a copy of its node holds.
                    const isAugmented = parent?.nodeType === AUGMENTED_ASSIGNMENT && parent.d.leftExpr === node;
                    nodes.push(isAugmented ? parent.d.destExpr : node);
                } else if (node.nodeType === STRING && !isDocumentation(node)) {
                    nodes.push(node);
                }
                return super.visitNode(node);
            }
        })().walk(this.parsed.parserOutput.parseTree);
        return nodes.sort((one, other) => one.start - other.start);
    }

    /** The nodes at these positions, which need not be names. @param {[number, number][]} positions @returns {any[]} */
    nodesAt(positions) {
        const { convertPositionToOffset } = exportsWith('convertPositionToOffset');
        const { findNodeByOffset } = exportsWith('findNodeByOffset');
        const nodes = new Set();
        for (const [line, character] of positions) {
            const offset = convertPositionToOffset({ line, character }, this.#lines);
            if (offset === undefined) continue;
            const node = findNodeByOffset(this.parsed.parserOutput.parseTree, offset, this.#infoReader);
            if (node?.nodeType === NAME || node?.nodeType === STRING) nodes.add(node);
        }
        return [...nodes];
    }

    /** Tells what is to be told of a node, but for documentation and definitions. @param {any} node */
    tell(node) {
        this.#tellOne(node);
        if (node.nodeType === STRING) this.#namesWithin(node).forEach((name) => this.#tellOne(name));
    }

    /** @param {any} node */
    #tellOne(node) {
        this.deferred = [];
        let results;
        try {
            results = this.#hovered(node, this);
        } catch (error) {
            // One bad place does not spoil the rest.
            this.failures.push(error);
            this.#answers.push({ range: this.#rangeOf(node) });
            return;
        }
        if (!results) return;
        /** @type {Answer} */
        const answer = { range: results.range, text: markdown(results) };
        this.#answers.push(answer);
        const { documentation, definitions } = this.details;
        if (documentation || definitions) this.#unfinished.push({ node, answer, results, deferred: this.deferred });
    }

    /**
     * The names in a string that is an annotation only by what it is given to, as in `cast("Name", value)`. That shows
     * once it was evaluated, as it is for the hover of the string.
     * @param {any} string @returns {any[]}
     */
    #namesWithin({ parent: list }) {
        const annotation = exportsWith('getStringAnnotation').getStringAnnotation(list, this.#infoReader);
        // What is one by the grammar is part of the tree.
        if (!annotation || annotation === exportsWith('getParserStringAnnotation').getParserStringAnnotation(list)) return [];
        /** @type {any[]} */
        const names = [];
        const { ParseTreeWalker } = exportsWith('ParseTreeWalker');
        const walker = new ParseTreeWalker(this.#infoReader);
        walker.visitName = (/** @type {any} */ node) => names.push(node) > 0;
        walker.walk(annotation);
        return names.sort((one, other) => one.start - other.start);
    }

    /** What tells of the tree's nodes what was found out since it was parsed. */
    get #infoReader() {
        return exportsWith('getStringAnnotation').getInfoReader(this.layers.program);
    }

    /** Adds documentation and definitions to an answer, once all are told; false once there is none left. */
    finish() {
        const next = this.#unfinished.pop();
        if (!next) return false;
        const { node, answer, results, deferred } = next;
        if (this.details.definitions) answer.definitions = this.#definitions(node);
        if (!this.details.documentation) return true;
        if (node.nodeType === STRING) {
            // A key of several dictionaries is told with the documentation of each in between.
            answer.documented = markdown(this.#hovered(node, undefined));
            return true;
        }
        this.layers.within(this.layers.documentation, () => {
            let isAdded = false;
            for (const { add, isElse } of deferred) isAdded = isElse && isAdded ? isAdded : add(results.parts);
        });
        answer.documented = markdown(results);
        return true;
    }

    /** @param {any} node */
    #rangeOf(node) {
        const { convertOffsetToPosition } = exportsWith('convertOffsetToPosition');
        const { start, length } = node;
        return { start: convertOffsetToPosition(start, this.#lines), end: convertOffsetToPosition(start + length, this.#lines) };
    }

    /** @param {any} node @param {Answers | undefined} deferring */
    #hovered(node, deferring) {
        const hover = this.#hover;
        hover._position = exportsWith('convertOffsetToPosition').convertOffsetToPosition(node.start, this.#lines);
        known = node;
        active = deferring;
        try {
            return this.layers.within(this.evaluator, () => hover._getHoverResult());
        } finally {
            known = active = undefined;
        }
    }

    /** All that was told. */
    get all() {
        return this.#answers;
    }

    /** @param {any} hover @param {(...args: any[]) => boolean} addPart @param {any[]} args */
    defer(hover, addPart, args) {
        if (!this.details.documentation) return;
        const [, type, declaration, name] = args;
        const add = (/** @type {any[]} */ parts) =>
            this.documentation.add(parts, [type], declaration, name, () => addPart.apply(hover, args));
        this.deferred.push({ add, isElse: false });
    }

    /** @param {(...args: any[]) => any} find @param {any[]} args */
    deferConstructor(find, args) {
        if (!this.details.documentation) return;
        const [classType, methodType, declaration] = args;
        const { _format: format } = this.#hover;
        const { serviceProvider } = this.layers.program;
        const add = (/** @type {any[]} */ parts) =>
            this.documentation.add(parts, [classType, methodType], declaration, '()', () => {
                const found = find(...args);
                if (!found?.text) return false;
                const { addDocumentationResultsPart: addPart } = exportsWith('addDocumentationResultsPart');
                const source = found.sourceDecl ?? declaration;
                return addPart(serviceProvider, found.text, format, parts, source, found.forceLiteral);
            });
        this.deferred.push({ add, isElse: false });
    }

    /** @param {any} node */
    #definitions(node) {
        const { DefinitionProvider } = exportsWith('DefinitionProvider');
        const { _sourceMapper: mapper } = this.#hover;
        /** @type {any[]} */
        const found =
            DefinitionProvider.getDefinitionsForNode(mapper, this.evaluator, node, node.start, NEVER_CANCELLED) ?? [];
        return found.flatMap(({ uri, range }) => this.place(uri, range) ?? []);
    }
}

/** Whether a string stands for itself, as documentation does. @param {any} string */
function isDocumentation(string) {
    return string.parent?.nodeType === STRING_LIST && string.parent.parent?.nodeType === STATEMENT_LIST;
}

/** @param {any} results @returns {string} */
function markdown(results) {
    return exportsWith('convertHoverResults').convertHoverResults(results, 'markdown').contents.value;
}

/** Documentation and sources that were found, for as long as the program is the same. */
class Documentation {
    /** @type {WeakMap<any, Map<string, { isAdded: boolean, parts: any[] }>>} */
    #found = new WeakMap();
    /** @type {WeakMap<any, any>} */
    #sources = new WeakMap();

    /** Has a source mapper find each function once. @param {any} mapper */
    remember(mapper) {
        const find = mapper.findFunctionDeclarations;
        const sources = this.#sources;
        mapper.findFunctionDeclarations = function (/** @type {any} */ declaration, /** @type {any[]} */ ...rest) {
            if (rest.length > 0) return find.call(this, declaration, ...rest);
            let found = sources.get(declaration);
            if (!found) sources.set(declaration, (found = find.call(this, declaration)));
            return found;
        };
    }

    /**
     * Adds a declaration's documentation to a hover's parts, from what was found before if it can.
     * @param {any[]} parts @param {any[]} types @param {any} declaration @param {string | undefined} name
     * @param {() => boolean} add adds it to the parts
     */
    add(parts, types, declaration, name, add) {
        const typeKey = joined(types);
        if (!declaration || typeKey === undefined) return add();
        // What stands before decides how documentation is set apart.
        const before = parts.at(-1);
        const setting = !before ? '' : before.python ? 'p' : /\n\n$/.test(before.text) ? '2' : /\n$/.test(before.text) ? '1' : '0';
        let found = this.#found.get(declaration);
        if (!found) this.#found.set(declaration, (found = new Map()));
        const key = `${setting} ${name} ${typeKey}`;
        const kept = found.get(key);
        if (kept) {
            parts.push(...kept.parts);
            return kept.isAdded;
        }
        const length = parts.length;
        const isAdded = add();
        found.set(key, { isAdded, parts: parts.slice(length) });
        return isAdded;
    }
}

/** What of a type its documentation can depend on; undefined where that is not known. @param {any} type @returns {string | undefined} */
function keyOf(type) {
    switch (type?.category) {
        case FUNCTION_TYPE: {
            const declaration = type.shared.declaration;
            return declaration ? `f${declaration.node.id} ${type.shared.name}` : undefined;
        }
        case OVERLOADED_TYPE:
            return joined(exportsWith('OverloadedType').OverloadedType.getOverloads(type));
        case CLASS_TYPE:
            return `c${type.flags} ${type.shared.fullName} ${type.shared.typeSourceId}`;
        case MODULE_TYPE:
            return `m${type.priv.fileUri?.key} ${type.priv.moduleName}`;
        default:
            return `t${type?.category}`;
    }
}

/** @param {any[]} types @returns {string | undefined} */
function joined(types) {
    const keys = types.map(keyOf);
    return keys.includes(undefined) ? undefined : keys.join(' ');
}

module.exports = { Answers, Documentation, install };
