-- A database as the first revision made it. Its secret key is in test_database.py; never change this file.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE endpoints (
	id VARCHAR(32) NOT NULL, 
	name TEXT NOT NULL, 
	settings TEXT NOT NULL, 
	token_key VARCHAR(8), 
	token_box BLOB, 
	CONSTRAINT pk_endpoints PRIMARY KEY (id), 
	CONSTRAINT uq_endpoints_name UNIQUE (name)
);
INSERT INTO "endpoints" VALUES('79025dc9650865727e63b56f062d6f48','e5','{"name":"e5","task":"text_embedding","source":"dedicated","model":null,"url":"https://example.org/e5","engine":null,"similarity":null,"dimensions":null,"max_input_tokens":null,"requests_per_minute":3000,"chunking":{"strategy":"sentence","max_chunk_size":250,"sentence_overlap":1,"overlap":null,"separators":null},"facts":{"engine":null,"engine_version":null,"model":null,"revision":null,"dimensions":null,"max_input_tokens":null,"max_batch_texts":null,"auto_truncate":null,"pooling":null,"precision":null,"warnings":[]}}','62b2323a',X'FD01CD5E641A174CAAC681E336E550C4159D452CEF9CA799FFA67A6F58BD932564BB0E9ECF8E31FBE26AF5E0371DB03C0407DD2B3BC3455FD1503E');
CREATE TABLE keys (
	id VARCHAR(32) NOT NULL, 
	name TEXT NOT NULL, 
	digest BLOB NOT NULL, 
	created_at DOUBLE NOT NULL, 
	last_used_at DOUBLE, 
	admin BOOLEAN NOT NULL, 
	default_endpoint TEXT, 
	CONSTRAINT pk_keys PRIMARY KEY (id), 
	CONSTRAINT uq_keys_name UNIQUE (name), 
	CONSTRAINT uq_keys_digest UNIQUE (digest)
);
INSERT INTO "keys" VALUES('0a1b2c3d','dify',X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F',1.5,2.5,0,NULL);
CREATE TABLE notes (
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_notes PRIMARY KEY (name)
);
INSERT INTO "notes" VALUES('colour','blue');
COMMIT;
