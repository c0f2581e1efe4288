import sys, collections, random, tempfile, shutil, traceback
from pathlib import Path
from tests.cache.faults import *
from tests.cache.helpers import *
from cache.maintenance import verify, repair
from cache import UserError
if __name__=="__main__":
    for zstd in (0,3):
        plan=make_plan(n_clips=3,zstd_level=zstd)
        d=Path(tempfile.mkdtemp())/'a'; write_cache(d,plan); whole=tree(d)
        stat=collections.Counter(); ex=collections.defaultdict(list)
        for f in [p for p in sorted(d.rglob('*')) if p.is_file() and not p.name.startswith('.')]:
            name=str(f.relative_to(d)); c=f.read_bytes(); rng=random.Random(name)
            bits=[(i,b) for i in range(len(c)) for b in range(8)]
            for i,b in rng.sample(bits,min(len(bits),int(sys.argv[1]))):
                f.write_bytes(flip(c,i,b))
                try:
                    s=survey(d,plan)
                    k='wrong' if s.wrong else 'wrongtable' if s.wrong_tables else 'ok' if len(s.intact)==plan.n_shards else 'error'
                except Exception as e:
                    k='RAW '+type(e).__name__+' '+traceback.extract_tb(e.__traceback__)[-1].filename.split('/')[-1]
                try:
                    v=verify(d); kv='named' if any(name in str(x) for x in v) else 'NOTNAMED %d'%len(v)
                except UserError as e: kv='refused' if name in str(e) else 'REFUSED'
                except Exception as e: kv='RAWV '+type(e).__name__+str(e)[:50]
                stat[(name,k,kv)]+=1; ex[(name,k,kv)].append(i)
            f.write_bytes(c)
        for k,n in sorted(stat.items()): print(zstd,k,n, ex[k][:5] if 'named' not in k[2] or 'wrong' in k[1] or 'RAW' in k[1] else '')
