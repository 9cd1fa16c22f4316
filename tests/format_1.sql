BEGIN TRANSACTION;
CREATE TABLE array (name TEXT PRIMARY KEY, dtype TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL);
INSERT INTO "array" VALUES('seeds','<i4','[0, 3]',X'');
CREATE TABLE batch (
    number INTEGER PRIMARY KEY, label TEXT NOT NULL, asked INTEGER NOT NULL, rows INTEGER NOT NULL,
    ids BLOB NOT NULL, population BLOB NOT NULL, fresh BLOB NOT NULL
);
INSERT INTO "batch" VALUES(0,'asked',4,4,X'0000000000000000010000000000000002000000000000000300000000000000',X'020000000400000005000000040000000700000008000000040000000500000007000000000000000400000006000000',X'01010101');
INSERT INTO "batch" VALUES(1,'asked',4,4,X'0400000000000000050000000000000006000000000000000700000000000000',X'010000000200000005000000010000000500000007000000030000000500000007000000030000000400000005000000',X'01010101');
INSERT INTO "batch" VALUES(2,'asked',4,4,X'080000000000000009000000000000000A000000000000000B00000000000000',X'000000000200000006000000010000000300000007000000040000000600000007000000000000000600000007000000',X'01010101');
INSERT INTO "batch" VALUES(3,'asked',4,4,X'0C000000000000000D000000000000000E000000000000000F00000000000000',X'020000000500000006000000020000000300000004000000010000000500000006000000000000000300000008000000',X'01010101');
INSERT INTO "batch" VALUES(4,'finalists on select',0,8,X'00000000000000000100000000000000020000000000000003000000000000000400000000000000050000000000000006000000000000000700000000000000',X'000000000400000006000000010000000500000007000000040000000600000007000000000000000200000006000000020000000500000006000000020000000400000005000000020000000300000004000000000000000600000007000000',X'0101010101010101');
INSERT INTO "batch" VALUES(5,'finalists on holdout',0,1,X'0000000000000000',X'000000000600000007000000',X'01');
CREATE TABLE chunk (
    batch INTEGER NOT NULL REFERENCES batch (number), row INTEGER NOT NULL, row_end INTEGER NOT NULL,
    case_start INTEGER NOT NULL, case_end INTEGER NOT NULL, width INTEGER NOT NULL, scores BLOB NOT NULL,
    secondary BLOB, status BLOB NOT NULL, errors TEXT, seconds REAL NOT NULL,
    PRIMARY KEY (batch, row, case_start)
);
INSERT INTO "chunk" VALUES(0,0,3,0,2,1,X'F8AF735B552FDE3FC79B9D01DE2DDFBF000000000000F87F000000000000F87FCC3FD548F232EBBF0CB31C8CDE4E90BF',NULL,X'010301','["", "Traceback (most recent call last):\n  File \"searchlib/evaluation.py\", line 95, in score_chunk\n    objective.evaluate(Candidates(objective.space, rows), cases), len(rows), cases\n    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"made.py\", line 14, in evaluate\n    raise ValueError(\"too heavy\")\nValueError: too heavy\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"searchlib/evaluation.py\", line 95, in score_chunk\n    objective.evaluate(Candidates(objective.space, rows), cases), len(rows), cases\n    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"made.py\", line 14, in evaluate\n    raise ValueError(\"too heavy\")\nValueError: too heavy\n", ""]',5.69876000099611701443e-04);
INSERT INTO "chunk" VALUES(0,3,4,0,2,1,X'21581CAE4DFEEF3FB8A80D6186D5E13F',NULL,X'01',NULL,2.74310000349942129105e-05);
INSERT INTO "chunk" VALUES(1,0,3,0,2,1,X'261E13681608E8BFCF84F5282D2FC33F6BA5507D374FC53F13F1D5CFFF6DED3F52C1E6AB676DDABFA790CCD0E0A9EFBF',NULL,X'010101',NULL,6.68500001665961463004e-05);
INSERT INTO "chunk" VALUES(1,3,4,0,2,1,X'ADF914583DEDEDBF3F358F5A45B4E9BF',NULL,X'01',NULL,2.15719999232533155009e-05);
INSERT INTO "chunk" VALUES(2,0,3,0,2,1,X'66EA103CD59CCFBF2424A85EA5D2E53F1CB39CB849F0EFBF1E7360A066ECE2BFED192E2A5B9CBDBF17B158211ABFE83F',NULL,X'010101',NULL,2.78820000403356971219e-05);
INSERT INTO "chunk" VALUES(2,3,4,0,2,1,X'1E7360A066ECE2BF135FF8E3CFFAD63F',NULL,X'01',NULL,1.8357000044488813728e-05);
INSERT INTO "chunk" VALUES(3,0,3,0,2,1,X'0A54F02ACFD6DABF72D25A49BE31E13F16BCDB80C0B6E0BF653827AC06DDDB3F027D24D03C14EBBF0F1419797FFAECBF',NULL,X'010101',NULL,2.6439000066602602601e-05);
INSERT INTO "chunk" VALUES(3,3,4,0,2,1,X'000000000000F87F000000000000F87F',NULL,X'03','["Traceback (most recent call last):\n  File \"searchlib/evaluation.py\", line 95, in score_chunk\n    objective.evaluate(Candidates(objective.space, rows), cases), len(rows), cases\n    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"made.py\", line 14, in evaluate\n    raise ValueError(\"too heavy\")\nValueError: too heavy\n"]',1.70185000115452567115e-04);
INSERT INTO "chunk" VALUES(4,0,3,0,2,1,X'3556C1EFCF94EFBF360CE69ADDC3EFBF42226FE67A479ABF0B087FF92774D3BF94C89B20B74CD03F42226FE67A479ABF',NULL,X'010101',NULL,2.78520001302240416407e-05);
INSERT INTO "chunk" VALUES(4,3,6,0,2,1,X'1B7B4F766866D83F2492A64CBE95BB3FA11402A88362E13F1BB16B15125FD23F1E7360A066ECE2BF50D0F5D333EBD5BF',NULL,X'010101',NULL,1.7346000049656140618e-05);
INSERT INTO "chunk" VALUES(4,6,8,0,2,1,X'644B8612C465E43FF3E7A5923264D93FA06780A12C60E63FF8AF735B552FDE3F',NULL,X'0101',NULL,1.37509998694440582767e-05);
INSERT INTO "chunk" VALUES(5,0,1,0,2,1,X'F8AF735B552FDE3FC79B9D01DE2DDFBF',NULL,X'01',NULL,2.16819998968276195228e-05);
CREATE TABLE digest (
    batch INTEGER PRIMARY KEY REFERENCES batch (number), omitted INTEGER NOT NULL, value TEXT NOT NULL
);
CREATE TABLE memo (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (kind, key)
);
INSERT INTO "memo" VALUES(1,'made','a rewrite','["once"]');
CREATE TABLE reference (
    name TEXT NOT NULL, split TEXT NOT NULL, width INTEGER NOT NULL, scores BLOB NOT NULL, PRIMARY KEY (name, split)
);
INSERT INTO "reference" VALUES('nothing','holdout',1,X'00000000000000000000000000000000');
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "setting" VALUES('space','{"space": "Subset", "n": 9, "k": 3}');
INSERT INTO "setting" VALUES('dtype','"<i4"');
INSERT INTO "setting" VALUES('objective','{"objective": "Weights"}');
INSERT INTO "setting" VALUES('chunk','[3, null]');
INSERT INTO "setting" VALUES('dimension','3');
INSERT INTO "setting" VALUES('direction','"maximize"');
INSERT INTO "setting" VALUES('cases','{"search": [2, "beed64015c16eaab"], "select": [2, "93e5c1ef8705e01c"], "holdout": [2, "39763a6b6d8efc3c"]}');
INSERT INTO "setting" VALUES('algorithm','"Evolution(population=4, offspring=12, crossover_rate=0.5, mutation_pool=Pool(at_least=6, margin=0.0), crossover_pool=Pool(at_least=12, margin=0.0), mutate_crosses=True, secondary_weight=0.0, archive=1024)"');
INSERT INTO "setting" VALUES('planned','16');
INSERT INTO "setting" VALUES('versions','{"python": "3.11.7", "numpy": "2.2.6", "scipy": "1.17.1", "joblib": "1.6.0"}');
INSERT INTO "setting" VALUES('seed','2');
INSERT INTO "setting" VALUES('batch_size','4');
INSERT INTO "setting" VALUES('threads','1');
INSERT INTO "setting" VALUES('racing','null');
INSERT INTO "setting" VALUES('case_source','null');
INSERT INTO "setting" VALUES('task_space','null');
INSERT INTO "setting" VALUES('given_seeds','[]');
INSERT INTO "setting" VALUES('budget','"Budget(evaluations=16)"');
INSERT INTO "setting" VALUES('shortlist','8');
INSERT INTO "setting" VALUES('choose','null');
INSERT INTO "setting" VALUES('result','{"row": [0, 6, 7], "value": 0.585439517374647, "holdout": {"rows": [{"name": "best", "value": -0.007767754683156686, "interval": [-6.099208170907912, 6.083672661541599], "difference": 0.0, "difference_interval": [0.0, 0.0]}, {"name": "nothing", "value": 0.0, "interval": [0.0, 0.0], "difference": -0.007767754683156686, "difference_interval": [-6.099208170907912, 6.083672661541599]}], "cases": 2, "looks": 1}, "outcome": "EVALUATIONS", "notes": {}, "optimism": [0.5932072720578037, -4.354341572803211, 5.540756116918818], "corrected": [0.5840739112032817, 0.47163900309419615, 0.6992400316550977]}');
CREATE TABLE told (
    batch INTEGER PRIMARY KEY REFERENCES batch (number), vals BLOB NOT NULL, secondary BLOB NOT NULL,
    standard_error BLOB NOT NULL, status BLOB NOT NULL, errors TEXT, seconds REAL NOT NULL
);
INSERT INTO "told" VALUES(0,X'E0793DC514D17FBF000000000000F87F6425363D69B5DBBF6C009507EAE9E83F',X'000000000000F87F000000000000F87F000000000000F87F000000000000F87F',X'E0A588AE99AEDE3F000000000000F87F325A74547BB0DA3FD15E1D9A8E51CC3F',X'01030101','["", "Traceback (most recent call last):\n  File \"searchlib/evaluation.py\", line 95, in score_chunk\n    objective.evaluate(Candidates(objective.space, rows), cases), len(rows), cases\n    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"made.py\", line 14, in evaluate\n    raise ValueError(\"too heavy\")\nValueError: too heavy\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"searchlib/evaluation.py\", line 95, in score_chunk\n    objective.evaluate(Candidates(objective.space, rows), cases), len(rows), cases\n    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"made.py\", line 14, in evaluate\n    raise ValueError(\"too heavy\")\nValueError: too heavy\n", "", ""]',1.64832400014347513206e-03);
INSERT INTO "told" VALUES(1,X'F2BCD51D4B3CD3BF370D95D7E660E13FA8F85F534A70E6BF76175259C1D0EBBF',X'000000000000F87F000000000000F87F000000000000F87F000000000000F87F',X'597F50B2E1D3DC3FB7C781F0311AD83FFE2FD9FA2C73D23FB81117F6DFE3B03F',X'01010101',NULL,7.51838000041971099562e-04);
INSERT INTO "told" VALUES(2,X'15D3471FE0D6CB3F1D937E2C586EE9BFD9ED12BC8E0BD53F520E91B9FABBBDBF',X'000000000000F87F000000000000F87F000000000000F87F000000000000F87F',X'BE5EACADDAB9DD3FFC7F7830C607CA3F53749E86A572DC3FA7A25C92CE69DE3F',X'01010101',NULL,5.8560899992698978167e-04);
INSERT INTO "told" VALUES(3,X'6843159FB532AE3F1CFF4056E941A6BF88C89E245E07ECBF000000000000F87F',X'000000000000F87F000000000000F87F000000000000F87F000000000000F87F',X'77FCD2DE259DDE3F4858EFD643A5DE3FCF70498F2A649E3F000000000000F87F',X'01010103','["", "", "", "Traceback (most recent call last):\n  File \"searchlib/evaluation.py\", line 95, in score_chunk\n    objective.evaluate(Candidates(objective.space, rows), cases), len(rows), cases\n    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"made.py\", line 14, in evaluate\n    raise ValueError(\"too heavy\")\nValueError: too heavy\n"]',5.90086000102019170299e-04);
COMMIT;
PRAGMA user_version = 1;
