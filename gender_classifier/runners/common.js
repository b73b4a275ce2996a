// What the runners of packages for Node share. A runner is started as
//   node RUNNER.js FOLDER_OF_PACKAGES CORES [OPTION]
// says {"ready": {…}} once it is loaded, and then, for every line of standard input, which is the path of a picture as JSON, a line
//   {"file", "faces": [{"box": [x, y, width, height], "gender": "female"|"male"|null, "score"}], "ms", "cpu", "error"}
// where ms runs from the file to the answer, and cpu is the processor time of all threads in it
'use strict';
const path = require('path');
const readline = require('readline');
const { createRequire } = require('module');

const folder = path.resolve(process.argv[2]);
const load = createRequire(path.join(folder, 'package.json')); // packages are looked for there, not beside this file
const version = name => JSON.parse(require('fs').readFileSync(path.join(folder, 'node_modules', name, 'package.json'))).version;

for (const o of ['log', 'info', 'warn']) console[o] = (...args) => console.error(...args); // standard output is for answers
const say = o => process.stdout.write(JSON.stringify(o) + '\n');

async function decode(file, tf) {
  const sharp = load('sharp');
  const { data, info } = await sharp(file).rotate().toColourspace('srgb').flatten({ background: '#ffffff' }).raw().toBuffer({ resolveWithObject: true });
  return tf.tensor3d(new Uint8Array(data), [info.height, info.width, info.channels], 'int32');
}

async function answer(file, tf, faces) {
  const start = performance.now(), used = process.cpuUsage(), res = { file, faces: [], ms: null, cpu: null, error: null };
  let img;
  try {
    img = await decode(file, tf);
    res.faces = await faces(img);
  } catch (e) { res.error = String(e.message || e).split('\n')[0]; }
  if (img) tf.dispose(img);
  res.ms = performance.now() - start;
  const cpu = process.cpuUsage(used);
  res.cpu = (cpu.user + cpu.system) / 1e3;
  return res;
}

async function serve(tf, faces, ready) {
  load('sharp').concurrency(Number(process.argv[3]) || 1);
  say({ ready: { ...ready, versions: { ...ready.versions, node: process.versions.node } } });
  for await (const line of readline.createInterface({ input: process.stdin })) if (line.trim()) say(await answer(JSON.parse(line), tf, faces));
}

// the WASM build of TensorFlow.js: the native one is not in the registry, its install script fetches it from elsewhere
async function wasm(tf) {
  const dir = path.dirname(load.resolve('@tensorflow/tfjs-backend-wasm/package.json'));
  load('@tensorflow/tfjs-backend-wasm').setWasmPaths(path.join(dir, 'dist') + path.sep);
  await tf.setBackend('wasm');
  await tf.ready();
  if (tf.getBackend() !== 'wasm') throw new Error(`the WASM backend does not start, TensorFlow.js is on ${tf.getBackend()}`);
}

module.exports = { folder, load, serve, version, wasm };
