// A release whose hover says more.
'use strict';
require('./release.cjs').change(({ HoverProvider }) => {
    if (!HoverProvider) return;
    const { getHover } = HoverProvider.prototype;
    HoverProvider.prototype.getHover = function () {
        const hover = getHover.call(this);
        if (hover) hover.contents.value += 'And more.';
        return hover;
    };
});
