// A release that has no `convertHoverResults`.
'use strict';
require('./release.cjs').change((exports) => {
    if (exports.convertHoverResults) delete exports.convertHoverResults;
});
