// Gives a caller's settings precedence over those of the project's own configuration.
//
// Where a project has a configuration, the language server heeds no other settings, and for the Python version and
// platform it has none at all.
'use strict';
const { whenExported, exportsWith } = require('./bundle.cjs');

/**
 * What a caller sets; all paths are absolute.
 * @typedef {{ pythonVersion?: string, pythonPlatform?: string, hasVenv: boolean, extraPaths: string[], stubPath?: string }} Settings
 */

/** @param {Settings} settings */
function enforce({ pythonVersion, pythonPlatform, hasVenv, extraPaths, stubPath }) {
    let isPlaced = false;
    whenExported('PythonVersion');
    whenExported('AnalyzerService', ({ AnalyzerService: { prototype } }) => {
        const ensureDefaultOptions = prototype._ensureDefaultOptions;
        if (!ensureDefaultOptions) return;
        isPlaced = true;
        // It runs once the configuration was read, and before what belongs to single folders inherits from it.
        prototype._ensureDefaultOptions = function (
            /** @type {any} */ host,
            /** @type {any} */ options,
            /** @type {any} */ root,
            /** @type {any[]} */ ...rest
        ) {
            if (pythonVersion) {
                const version = exportsWith('PythonVersion').PythonVersion.fromString?.(pythonVersion);
                if (!version) fail(`"${pythonVersion}" is no Python version`);
                options.defaultPythonVersion = version;
            }
            if (pythonPlatform) options.defaultPythonPlatform = pythonPlatform;
            if (hasVenv) options.venvPath = options.venv = undefined;
            if (stubPath) options.stubPath = root.resolvePaths(stubPath);
            /** @type {any[] | undefined} */
            const known = options.defaultExtraPaths;
            if (known) {
                const named = extraPaths.map((path) => root.resolvePaths(path));
                const isNamed = (/** @type {any} */ path) => known.some((other) => other.key === path.key);
                options.defaultExtraPaths = [...named.filter((path) => !isNamed(path)), ...known];
            }
            return ensureDefaultOptions.call(this, host, options, root, ...rest);
        };
    });
    // The entry point loads all of Pyright before it returns. Types without these settings must not be told: another
    // release, which has no such place for them, ends before it is ready.
    setImmediate(() => isPlaced || fail('this release of Pyright has no place for them'));
}

/** @param {string} reason */
function fail(reason) {
    console.error(`A caller's settings can't be set: ${reason}`);
    process.exit(1);
}

module.exports = { enforce };
