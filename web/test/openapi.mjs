// Reads a description of OpenAPI and writes which version it is of, or, and then fails, what is wrong with it.
import { readFileSync } from 'node:fs';
import { Validator } from '@seriousme/openapi-schema-validator';

const validator = new Validator();
const { valid, errors } = await validator.validate(JSON.parse(readFileSync(0, 'utf8')));
console.log(valid ? validator.version : JSON.stringify(errors).slice(0, 4000));
process.exit(valid ? 0 : 1);
