// What picker.js and cleaner.js both use: `read_static` puts it before them
/** An element with properties or attributes `props` and `children` */
function h(tag, props = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) {
    if (k in e) e[k] = v; else e.setAttribute(k, v);
  }
  e.append(...children);
  return e;
}
