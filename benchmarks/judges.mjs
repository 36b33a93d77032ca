// Write what the original networks say of a pattern, for the tests of the networks in PyTorch. Example:
//
//     npm install @tensorflow/tfjs@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0 @vladmandic/face-api@1.7.15 nsfwjs@4.3.0
//     node benchmarks/judges.mjs node_modules tests/evaluation/metrics/judges.json
//
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [modules, out] = process.argv.slice(2);
const require = createRequire(resolve(modules, "x.js"));
const tf = require("@tensorflow/tfjs");
require("@tensorflow/tfjs-backend-wasm");
const SIDE = 64;

// The pattern of `pattern()` in tests/evaluation/metrics/test_judges.py.
const pixels = [];
for (let y = 0; y < SIDE; y++)
  for (let x = 0; x < SIDE; x++)
    for (let c = 0; c < 3; c++) pixels.push(((x * x + 3 * y * y + 40 * c * x) >> 4) & 255);

async function faces() {
  const folder = resolve(modules, "@vladmandic/face-api");
  const api = require(resolve(folder, "dist/face-api.node-wasm.js"));
  const image = tf.tensor3d(pixels, [SIDE, SIDE, 3], "int32");
  const numbers = {};
  for (const [name, model, network] of [
    ["face_descriptor", "face_recognition_model", new api.FaceRecognitionNet()],
    ["face_landmarks", "face_landmark_68_model", new api.FaceLandmark68Net()],
    ["face_expression", "face_expression_model", new api.FaceExpressionNet()],
  ]) {
    const manifest = JSON.parse(readFileSync(resolve(folder, `model/${model}-weights_manifest.json`)));
    const read = tf.io.weightsLoaderFactory(async (paths) =>
      paths.map((path) => new Uint8Array(readFileSync(path)).buffer));
    network.loadFromWeightMap(await read(manifest, resolve(folder, "model")));
    numbers[name] = Array.from(await (await network.forward(image)).data());
  }
  return numbers;
}

async function inception() {
  const folder = resolve(modules, "nsfwjs/dist/models/inception_v3");
  const model = require(`${folder}/model.min.js`);
  const [{ paths, weights }] = model.weightsManifest;
  const shards = paths.map((path) => Buffer.from(require(`${folder}/${path}.min.js`), "base64"));
  const weightData = new Uint8Array(Buffer.concat(shards)).buffer;
  const artifacts = { modelTopology: model.modelTopology, weightSpecs: weights, weightData };
  const whole = await tf.loadLayersModel(tf.io.fromMemory(artifacts));
  const cut = tf.model({ inputs: whole.inputs, outputs: whole.getLayer("flatten_1").output });
  const image = tf.tensor3d(pixels, [SIDE, SIDE, 3], "int32");
  const resized = tf.image.resizeBilinear(image.toFloat().div(255), [299, 299], true); // as nsfwjs does
  return { inception_nsfwjs: Array.from(await cut.predict(resized.expandDims()).data()) };
}

await tf.setBackend("wasm");
const numbers = { ...(await faces()), ...(await inception()) };
const rounded = Object.entries(numbers).map(([name, all]) =>
  `"${name}": [${all.map((number) => number.toPrecision(7)).join(", ")}]`);
writeFileSync(out, `{\n${rounded.join(",\n")}\n}\n`);
