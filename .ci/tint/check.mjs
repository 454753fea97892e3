// Compiles every .wgsl file of a folder with Tint, the compiler of Chrome, and makes pipelines of it: with all
// overrides at their defaults, then with each of them changed.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);

const ALTERNATIVES = {
  bool: [false, true],
  u32: { ACTIVATION: [0, 1, 2], WEIGHT: [0, 1, 2], INPUT: [0, 1, 2], OUT: [0, 1, 2], TOKENS: [1, 8] },
};

function alternatives(source) {
  const overrides = [...source.matchAll(/^override (\w+): (\w+)/gm)];
  const changes = overrides.flatMap(([, name, type]) => {
    const values = type === "bool" ? ALTERNATIVES.bool : (ALTERNATIVES.u32[name] ?? []);
    return values.map((value) => ({ [name]: Number(value) }));
  });
  return [{}, ...changes];
}

async function check(device, path) {
  const source = readFileSync(path, "utf8");
  const problems = [];
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ code: source });
  for (const message of (await module.getCompilationInfo()).messages) {
    if (message.type !== "info") problems.push(`${path}:${message.lineNum}: ${message.message}`);
  }
  for (const constants of problems.length === 0 ? alternatives(source) : []) {
    const compute = { module, constants };
    await device.createComputePipelineAsync({ layout: "auto", compute }).catch((error) => {
      problems.push(`${path} with ${JSON.stringify(constants)}: ${error.message}`);
    });
  }
  const error = await device.popErrorScope();
  if (error && problems.length === 0) problems.push(`${path}: ${error.message}`);
  return problems;
}

const folder = process.argv[2];
const gpu = create([]);
const adapter = await gpu.requestAdapter();
if (!adapter?.features.has("subgroups")) {
  console.error("no WebGPU adapter with subgroups: is the Vulkan driver installed, VK_DRIVER_FILES set?");
  process.exit(1);
}
// Some shaders are for devices that bind more buffers than WebGPU promises.
const { maxStorageBuffersPerShaderStage } = adapter.limits;
const device = await adapter.requestDevice({
  requiredFeatures: ["subgroups"],
  requiredLimits: { maxStorageBuffersPerShaderStage },
});
const files = readdirSync(folder).filter((name) => name.endsWith(".wgsl"));
const problems = [];
for (const file of files) problems.push(...(await check(device, join(folder, file))));
for (const problem of problems) console.error(problem);
console.log(`${files.length} shaders, ${problems.length} problems`);
// The device keeps the process alive otherwise.
process.exit(files.length > 0 && problems.length === 0 ? 0 : 1);
