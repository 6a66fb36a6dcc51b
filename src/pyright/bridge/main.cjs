// Loaded by Node before Pyright's language server: adds what pyrightd needs to it.
'use strict';
const bundle = require('./bundle.cjs');
const answers = require('./answers.cjs');
const requests = require('./requests.cjs');
const settings = require('./settings.cjs');
const { Layers } = require('./layers.cjs');

/** @type {{ settings: import('./settings.cjs').Settings | null, requests: boolean }} */
const wanted = JSON.parse(process.env.PYRIGHTD_BRIDGE ?? 'null') ?? { settings: null, requests: true };

if (wanted.settings) settings.enforce(wanted.settings);
if (wanted.requests) {
    Layers.install();
    answers.install();
    requests.install();
}
bundle.watch();
