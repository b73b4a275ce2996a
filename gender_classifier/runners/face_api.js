// @vladmandic/face-api: option tiny or ssd, its two face finders; landmarks and gender as in its own examples
// Its default settings leave many faces of portraits unfound; these are of its documentation and examples, and do better there:
// the tiny finder at 224 pixels is also faster than at 416, and the other one takes faces from 0.3 on, instead of 0.5
'use strict';
const path = require('path');
const { folder, load, serve, version, wasm } = require('./common.js');

async function main() {
  const tf = load('@tensorflow/tfjs'), tiny = process.argv[4] !== 'ssd';
  await wasm(tf);
  const api = load('@vladmandic/face-api/dist/face-api.node-wasm.js');
  const dir = path.join(folder, 'node_modules/@vladmandic/face-api/model');
  const finder = tiny ? api.nets.tinyFaceDetector : api.nets.ssdMobilenetv1;
  for (const o of [finder, api.nets.faceLandmark68Net, api.nets.ageGenderNet]) await o.loadFromDisk(dir);
  const options = tiny ? new api.TinyFaceDetectorOptions({ inputSize: 224 }) : new api.SsdMobilenetv1Options({ minConfidence: 0.3 });
  const faces = async img => (await api.detectAllFaces(img, options).withFaceLandmarks().withAgeAndGender()).map(o => {
    const b = o.detection.box;
    return { box: [b.x, b.y, b.width, b.height], gender: o.gender, score: o.genderProbability };
  });
  await serve(tf, faces, { backend: 'TensorFlow.js WASM', threads: 1, versions: { 'face-api': version('@vladmandic/face-api'), tfjs: version('@tensorflow/tfjs') } });
}

main().catch(e => { console.error(String(e.message || e).split('\n')[0]); process.exitCode = 1; });
