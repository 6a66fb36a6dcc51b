// Evaluators whose answers do not depend on what was asked before, and what they may share without losing that.
//
// Pyright infers on demand and keeps what it inferred in the caches of one evaluator, so that the order of questions can
// show in the answers. Here each file is evaluated by an evaluator of its own. To begin anew each time would be dear, so
// two layers outlive the evaluators. They stand in for entries of the cache that maps a node's id to its type:
//
// - The standard library's stubs are evaluated by one evaluator of their own. All in them is declared, and each
//   declaration is asked for from the outside, in the midst of nothing, so that it does not matter who asks or when.
// - What a function without a return annotation returns is inferred by an evaluator of its own for that function, and
//   kept for all who call it from other files. Nothing is kept of functions that call each other in a circle: what one
//   of them returns depends on which of them was asked first. Their callers infer them, each for itself.
//
// Where files are edited, the layers keep what depends on none of them.
'use strict';
const { whenExported, exportsWith } = require('./bundle.cjs');
const { dependentsOf } = require('./imports.cjs');

const STANDARD_STUBS = 'typeshed-fallback/stdlib/';
/** Numbers of `ParseNodeType`, which are the same in all recent releases; `check.cjs` would find them wrong. */
const CLASS = 10, FUNCTION = 31, NAME = 38;
/**
 * Functions that are inferred within each other before the innermost is inferred first. Deeper, the stack would end.
 */
const MAX_DEPTH = 24;

const PlainMap = globalThis.Map;
/** @type {(map: Map<any, any>, key: any) => any} */
const own = (map, key) => PlainMap.prototype.get.call(map, key);

/** @typedef {{ typeResult: { type: any, isIncomplete?: boolean } }} Entry What the type cache holds for a node. */
/** @typedef {{ node: any, file: string }} Inferred A function whose return type is inferred, and its file's key. */

/** Which parse nodes the layers are about, by id. A node's id is never used again. */
class Nodes {
    /** Classes, functions and names of the standard library's stubs. @type {Map<number, any>} */
    standard = new PlainMap();
    /** Functions without a return annotation, by the id of their suite. @type {Map<number, Inferred>} */
    inferred = new PlainMap();
    /** What was added for each file. @type {Map<any, { tree: any, standard: number[], inferred: number[] }>} */
    #files = new PlainMap();

    /** Takes up a file once it is bound. @param {any} file a `SourceFile` */
    add(file) {
        const tree = file.getParserOutput()?.parseTree;
        if (!tree || this.#files.get(file)?.tree === tree) return;
        this.remove(file);
        const added = { tree, standard: /** @type {number[]} */ ([]), inferred: /** @type {number[]} */ ([]) };
        const { standard, inferred } = this;
        const key = file.getUri().key;
        const { ParseTreeWalker } = exportsWith('ParseTreeWalker');
        if (key.includes(STANDARD_STUBS)) {
            // What a stub takes from elsewhere may be inferred. Only that stub does without the layer then: some answers
            // show whether there is one, so that it must not depend on which stubs were read before.
            if (!importsOther(file)) new (class extends ParseTreeWalker {
                visitNode(/** @type {any} */ node) {
                    if (node.nodeType === CLASS || node.nodeType === FUNCTION || node.nodeType === NAME) {
                        standard.set(node.id, node);
                        added.standard.push(node.id);
                    }
                    return super.visitNode(node);
                }
            })().walk(tree);
        } else if (key.endsWith('.py')) {
            new (class extends ParseTreeWalker {
                visitFunction(/** @type {any} */ node) {
                    if (!node.d.returnAnnotation && !node.d.funcAnnotationComment) {
                        inferred.set(node.d.suite.id, { node, file: key });
                        added.inferred.push(node.d.suite.id);
                    }
                    return true;
                }
            })().walk(tree);
        }
        this.#files.set(file, added);
    }

    /** Forgets a file whose tree is dropped. @param {any} file */
    remove(file) {
        const added = this.#files.get(file);
        if (!added) return;
        for (const id of added.standard) this.standard.delete(id);
        for (const id of added.inferred) this.inferred.delete(id);
        this.#files.delete(file);
    }

    /** Forgets files that are in no program any more. @param {any} program */
    sweep(program) {
        const present = new Set(program.getSourceFileInfoList().map((/** @type {any} */ info) => info.sourceFile));
        for (const file of this.#files.keys()) if (!present.has(file)) this.remove(file);
    }
}

/**
 * Whether a stub of the standard library imports what is none of it. Its own modules come first; what is left are those
 * that typeshed has for other Pythons alone, such as `_compression`, which `bz2` and `gzip` import.
 * @param {any} file a `SourceFile`
 */
function importsOther(file) {
    const isOther = (/** @type {any} */ uri) => uri && !uri.isEmpty() && !uri.key.includes(STANDARD_STUBS);
    return file.getImports().some((/** @type {any} */ found) => found.isImportFound && found.resolvedUris.some(isOther));
}

/** Thrown through the evaluators of functions to infer this one first, from the outside. */
class InferFirst {
    /** @param {number} suite */
    constructor(suite) {
        this.suite = suite;
    }
}

/** The evaluators of one program. */
class Layers {
    /** Which of the maps that an evaluator makes at its start is the type cache; found by `locate`. */
    static typeCacheIndex = -1;
    /** @type {WeakMap<any, Layers>} */
    static #byProgram = new WeakMap();
    static nodes = new Nodes();
    /** Not zero while an evaluator is made here; else Pyright makes one, since what was inferred holds no longer. */
    static #making = 0;
    /** What programs hold of the files that are being marked as edited; none where more than those can be otherwise. @type {Set<any> | undefined} */
    static #edited;

    /** Counts up whenever what was evaluated holds no longer. */
    generation = 0;
    /** How often something was evaluated for a layer. */
    statistics = { standard: 0, inferred: 0 };
    /** Of the standard library's stubs: the type cache of `#standard`. @type {Map<number, Entry>} */
    #standardEntries = new PlainMap();
    /** @type {any} */
    #standard;
    /** Ids that were asked for. @type {Set<number>} */
    #asked = new Set();
    #isAsking = false;
    /** What functions return, by their suites' ids; null where that can't be kept. @type {Map<number, Entry | null>} */
    #returns = new PlainMap();
    /**
     * Functions that were inferred, and are of a circle with one that is still under way: the lowest such in the stack.
     * @type {Map<number, number>}
     */
    #provisional = new PlainMap();
    /**
     * Functions that are under way, each called by the one before; `low` is the lowest that each has been found to call,
     * directly or through others. A circle is known whole once the lowest of it is done.
     * @type {{ suite: number, low: number }[]}
     */
    #stack = [];
    /** Those below it in the stack were abandoned, to be begun anew once the one there is inferred. */
    #base = 0;
    /** @type {any} */
    #documentation;

    /** @param {any} program */
    constructor(program) {
        this.program = program;
    }

    /** The layers of a program. @param {any} program @returns {Layers} */
    static of(program) {
        let layers = Layers.#byProgram.get(program);
        if (!layers) Layers.#byProgram.set(program, (layers = new Layers(program)));
        return layers;
    }

    /** Hooks what tells that files were read, or that what was inferred holds no longer. */
    static install() {
        whenExported('createTypeEvaluatorWithTracker');
        whenExported('ParseTreeWalker');
        whenExported('SourceFile', ({ SourceFile: { prototype } }) => {
            const { bind, dropParseAndBindInfo } = prototype;
            prototype.bind = function (/** @type {any[]} */ ...args) {
                const result = bind.apply(this, args);
                Layers.nodes.add(this);
                return result;
            };
            prototype.dropParseAndBindInfo = function (/** @type {any[]} */ ...args) {
                Layers.nodes.remove(this);
                return dropParseAndBindInfo.apply(this, args);
            };
        });
        whenExported('Program', ({ Program: { prototype } }) => {
            const { _createNewEvaluator: create, markFilesDirty, markAllFilesDirty, _markFileDirtyRecursive: mark } = prototype;
            prototype.markFilesDirty = function (/** @type {any[]} */ ...args) {
                // Where it goes by another name, whatever is evaluated is dropped for each edit.
                return Layers.#editing(mark && new Set(), () => markFilesDirty.apply(this, args));
            };
            prototype.markAllFilesDirty = function (/** @type {any[]} */ ...args) {
                return Layers.#editing(undefined, () => markAllFilesDirty.apply(this, args));
            };
            if (mark) {
                prototype._markFileDirtyRecursive = function (/** @type {any} */ info, /** @type {any[]} */ ...args) {
                    Layers.#edited?.add(info);
                    return mark.call(this, info, ...args);
                };
            }
            prototype._createNewEvaluator = function () {
                if (Layers.#making === 0) Layers.#byProgram.get(this)?.drop();
                return create.call(this);
            };
        });
    }

    /** @param {Set<any> | undefined} edited @param {() => void} mark */
    static #editing(edited, mark) {
        const saved = Layers.#edited;
        Layers.#edited = edited;
        try {
            mark();
        } finally {
            Layers.#edited = saved;
        }
    }

    /** Forgets what was evaluated, but for what depends on no file that is being marked as edited. */
    drop() {
        this.generation++;
        this.#documentation = undefined;
        this.#provisional = new PlainMap();
        this.#stack = [];
        Layers.nodes.sweep(this.program);
        const outdated = new Set(Layers.#edited && [...dependentsOf(Layers.#edited)].map(({ uri }) => uri.key));
        if (Layers.#edited && ![...outdated].some((file) => file.includes(STANDARD_STUBS))) {
            for (const suite of this.#returns.keys()) {
                const found = Layers.nodes.inferred.get(suite);
                if (!found || outdated.has(found.file)) this.#returns.delete(suite);
            }
            return;
        }
        this.#standard = undefined;
        this.#standardEntries = new PlainMap();
        this.#asked = new Set();
        this.#returns = new PlainMap();
    }

    /** Finds the type cache among an evaluator's maps, by entries for these names. @param {any[]} names nodes */
    locate(names) {
        /** @type {Map<any, any>[]} */
        const maps = [];
        const evaluator = this.#make((index, values) => (maps[index] = new PlainMap(...values)));
        for (const name of names) evaluator.getType(name);
        const holdsTypes = (/** @type {Map<any, any>} */ map) =>
            names.filter((name) => map.get(name.id)?.typeResult !== undefined).length > names.length / 2;
        Layers.typeCacheIndex = maps.findIndex(holdsTypes);
        if (Layers.typeCacheIndex < 0) throw new Error('an evaluator keeps its types elsewhere');
    }

    /**
     * An evaluator for a file. It infers that file's own functions itself, as they stand among the file's names.
     * @param {string | undefined} file its key
     */
    forFile(file) {
        return this.#layered(file, undefined).evaluator;
    }

    /** An evaluator for finding documentation, in which nothing that types are told from is left. */
    get documentation() {
        return (this.#documentation ??= this.forFile(undefined));
    }

    /** Runs with this evaluator as the program's own. @template T @param {any} evaluator @param {() => T} act @returns {T} */
    within(evaluator, act) {
        const { program, generation } = this;
        const saved = program._evaluator;
        program._evaluator = evaluator;
        try {
            return act();
        } finally {
            program._evaluator = saved;
            // Pyright meant its own to be replaced.
            if (this.generation !== generation) program._createNewEvaluator();
        }
    }

    /** @param {(index: number, values: any[]) => Map<any, any>} makeMap */
    #make(makeMap) {
        const { program } = this;
        const saved = program._evaluator;
        let index = 0;
        // Pyright would empty the one before.
        program._evaluator = undefined;
        Layers.#making++;
        globalThis.Map = /** @type {any} */ (
            new Proxy(PlainMap, { construct: (_, values) => makeMap(index++, values) })
        );
        try {
            program._createNewEvaluator();
            return program._evaluator;
        } finally {
            globalThis.Map = PlainMap;
            Layers.#making--;
            program._evaluator = saved;
        }
    }

    /**
     * @param {string | undefined} file whose functions it infers itself
     * @param {number | undefined} suite of the one function that it infers itself
     */
    #layered(file, suite) {
        /** @type {Map<number, Entry>} */
        const cache = new (this.#typeCache())(this, file, suite);
        const evaluator = this.#make((index, values) =>
            index === Layers.typeCacheIndex ? cache : new PlainMap(...values)
        );
        return { evaluator, cache };
    }

    #typeCache() {
        const layers = this;
        return class extends PlainMap {
            /** @param {Layers} _layers @param {string | undefined} file @param {number | undefined} suite */
            constructor(_layers, file, suite) {
                super();
                this.file = file;
                this.suite = suite;
            }
            /** @override @param {number} id @returns {any} */
            get(id) {
                return own(this, id) ?? layers.#ofStandard(id) ?? layers.#ofFunction(id, this.file, this.suite);
            }
        };
    }

    /** The type of a node in a stub of the standard library. @param {number} id @returns {Entry | undefined} */
    #ofStandard(id) {
        const entry = this.#standardEntries.get(id);
        if (entry !== undefined) return entry.typeResult.isIncomplete ? undefined : entry;
        if (this.#isAsking || this.#asked.has(id)) return undefined;
        const node = Layers.nodes.standard.get(id);
        if (node === undefined) return undefined;
        this.#asked.add(id);
        this.#isAsking = true;
        this.statistics.standard++;
        try {
            this.#standard ??= this.#make((index, values) =>
                index === Layers.typeCacheIndex ? this.#standardEntries : new PlainMap(...values)
            );
            if (node.nodeType === CLASS) this.#standard.getTypeOfClass(node);
            else if (node.nodeType === FUNCTION) this.#standard.getTypeOfFunction(node);
            else this.#standard.getType(node);
        } finally {
            this.#isAsking = false;
        }
        const evaluated = this.#standardEntries.get(id);
        return evaluated?.typeResult.isIncomplete ? undefined : evaluated;
    }

    /**
     * What a function of another file returns, if this is the id of its suite.
     * @param {number} id @param {string | undefined} file @param {number | undefined} suite @returns {Entry | undefined}
     */
    #ofFunction(id, file, suite) {
        if (id === suite) return undefined;
        const found = Layers.nodes.inferred.get(id);
        if (found === undefined || found.file === file) return undefined;
        if (this.#stack.length > 0) return this.#infer(id, found) ?? undefined;
        const begun = [{ suite: id, base: 0 }];
        try {
            for (let next = begun.at(-1); ; next = begun.at(-1)) {
                if (next === undefined) return this.#returns.get(id) ?? undefined;
                this.#base = next.base;
                // Those that were abandoned above it are begun anew, and now find more of what they ask for.
                this.#stack.length = next.base;
                try {
                    const node = Layers.nodes.inferred.get(next.suite);
                    if (node) this.#infer(next.suite, node);
                    begun.pop();
                } catch (error) {
                    if (!(error instanceof InferFirst)) throw error;
                    begun.push({ suite: error.suite, base: this.#stack.length });
                }
            }
        } finally {
            this.#stack = [];
            this.#provisional.clear();
        }
    }

    /** @param {number} suite @param {Inferred} found @returns {Entry | null} */
    #infer(suite, { node }) {
        const kept = this.#returns.get(suite);
        if (kept !== undefined) return kept;
        const stack = this.#stack;
        const depth = stack.length;
        const underWay = stack.findIndex((other) => other.suite === suite);
        const lowest = underWay >= 0 ? underWay : this.#provisional.get(suite);
        if (lowest !== undefined) {
            const caller = stack[depth - 1];
            caller.low = Math.min(caller.low, lowest);
            return null;
        }
        if (depth - this.#base === MAX_DEPTH) throw new InferFirst(suite);
        this.statistics.inferred++;
        const self = { suite, low: depth };
        stack.push(self);
        const { evaluator, cache } = this.#layered(undefined, suite);
        const type = evaluator.getTypeOfFunction(node)?.functionType;
        if (type) evaluator.getInferredReturnType(type);
        stack.pop();
        const circle = [...this.#provisional].filter(([, low]) => low >= depth).map(([other]) => other);
        if (self.low < depth) {
            for (const member of [suite, ...circle]) this.#provisional.set(member, self.low);
            const caller = stack[depth - 1];
            caller.low = Math.min(caller.low, self.low);
            return null;
        }
        for (const member of circle) {
            this.#provisional.delete(member);
            this.#returns.set(member, null);
        }
        const inferred = own(cache, suite);
        const isKept = circle.length === 0 && inferred && !inferred.typeResult.isIncomplete;
        // A function's type keeps what it returns, and that would be what the first who asks it finds.
        const entry = isKept && isShareable(inferred.typeResult.type) ? inferred : null;
        this.#returns.set(suite, entry);
        return entry;
    }
}

/** Numbers of `TypeCategory`. */
const FUNCTION_TYPE = 4, OVERLOADED_TYPE = 5, CLASS_TYPE = 6, UNION_TYPE = 8;
/** How deep type arguments are looked through. */
const MAX_ARGUMENTS = 8;

/** Whether a type holds no function, on whose type others would leave what they infer. @param {any} type @returns {boolean} */
function isShareable(type, depth = 0) {
    if (!type || depth > MAX_ARGUMENTS) return false;
    if (type.category === FUNCTION_TYPE || type.category === OVERLOADED_TYPE) return false;
    /** @type {any[]} */
    let parts = [];
    if (type.category === UNION_TYPE) parts = type.priv.subtypes;
    if (type.category === CLASS_TYPE) {
        const items = type.priv.tupleTypeArgs?.map((/** @type {any} */ item) => item.type) ?? [];
        parts = [...(type.priv.typeArgs ?? []), ...items];
    }
    return parts.every((part) => isShareable(part, depth + 1));
}

module.exports = { Layers, NAME };
