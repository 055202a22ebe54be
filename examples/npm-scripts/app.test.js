const test = require("node:test");
const assert = require("node:assert");

test("the secrets of the tests are there", () => {
  assert.ok(process.env.API_KEY);
});
