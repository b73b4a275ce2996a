// @vladmandic/human: its own settings for faces, without what is not asked for; nothing kept from one picture to the next
'use strict';
const fs = require('fs');
const path = require('path');
const { folder, load, serve, version, wasm } = require('./common.js');

// The package fetches its models; from the disk, this hands them over
function readModels() {
  const asked = globalThis.fetch;
  globalThis.fetch = async (url, ...args) => String(url).startsWith('file://') ? new Response(fs.readFileSync(new URL(String(url)))) : asked(url, ...args);
}

async function main() {
  readModels();
  const tf = load('@tensorflow/tfjs-core');
  await wasm(tf);
  const { Human } = require(path.join(folder, 'node_modules/@vladmandic/human/dist/human.node-wasm.js'));
  const off = { enabled: false };
  const human = new Human({
    backend: 'wasm', wasmPath: path.join(folder, 'node_modules/@tensorflow/tfjs-backend-wasm/dist') + path.sep, debug: false, cacheSensitivity: 0,
    modelBasePath: 'file://' + path.join(folder, 'node_modules/@vladmandic/human/models') + '/', filter: off, gesture: off, body: off, hand: off, object: off, segmentation: off,
    face: { enabled: true, detector: { maxDetected: 10 }, iris: off, emotion: off, antispoof: off, liveness: off },
  });
  await human.load();
  const faces = async img => {
    const res = await human.detect(img);
    if (res.error) throw new Error(res.error);
    return res.face.map(o => ({ box: o.box, gender: o.gender === 'female' || o.gender === 'male' ? o.gender : null, score: o.genderScore ?? null }));
  };
  await serve(tf, faces, { backend: 'TensorFlow.js WASM', threads: 1, versions: { human: version('@vladmandic/human'), tfjs: version('@tensorflow/tfjs-core') } });
}

main().catch(e => { console.error(String(e.message || e).split('\n')[0]); process.exitCode = 1; });
