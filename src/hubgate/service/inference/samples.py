"""A short text in each of many languages, for measuring how many tokens a model needs per word."""

from __future__ import annotations

from collections.abc import Mapping

SAMPLES: Mapping[str, str] = {
    "English": (
        "In 1987 the harbourmaster of Whitby, Eleanor Marchbanks, began to catalogue the shipwrecks along the Yorkshire "
        "coast. Her handwritten ledgers, digitised by volunteers, list 1,412 vessels, from coal brigs to steam trawlers. "
        "Historians cross-checked the entries against the insurers' archives and found barely any discrepancies, although "
        "several coordinates had been transposed during transcription."
    ),
    "German": (
        "Die Hafenstadt erwacht langsam. Fischer flicken am Kai ihre Netze, während der Bäcker warmes Brot zum "
        "Wochenmarkt trägt. Im Winter zählt der ehemalige Leuchtturmwärter die Frachtschiffe und schreibt ihre Namen "
        "in ein Notizbuch, das die Museumsverwaltung später den Besuchern aus dem ganzen Land zeigen wird."
    ),
    "French": (
        "La ville portuaire s'éveille lentement. Les pêcheurs réparent leurs filets sur le quai pendant que le "
        "boulanger apporte du pain chaud au marché. L'hiver, l'ancien gardien du phare compte les navires et inscrit "
        "leurs noms dans un carnet que le musée montrera plus tard aux visiteurs venus de tout le pays."
    ),
    "Turkish": (
        "Liman kasabası yavaş yavaş uyanıyor. Fırıncı pazara sıcak ekmek taşırken balıkçılar rıhtımda ağlarını "
        "onarıyor. Kışın yaşlı deniz feneri bekçisi gemileri sayıyor ve adlarını, müzenin daha sonra ülkenin dört "
        "bir yanından gelen ziyaretçilere göstereceği bir deftere yazıyor."
    ),
    "Russian": (
        "Портовый город просыпается медленно. Рыбаки чинят сети на набережной, а пекарь несёт на рынок тёплый хлеб. "
        "Зимой старый смотритель маяка считает корабли и записывает их названия в тетрадь, которую музей потом "
        "покажет посетителям со всей страны."
    ),
    "Arabic": (
        "تستيقظ مدينة الميناء ببطء. يصلح الصيادون شباكهم على الرصيف بينما يحمل الخباز الخبز الساخن إلى السوق. وفي "
        "الشتاء يعد حارس المنارة العجوز السفن ويكتب أسماءها في دفتر سيعرضه المتحف لاحقا على الزوار القادمين من كل "
        "أنحاء البلاد."
    ),
    "Persian": (
        "شهر بندری آرام بیدار می‌شود. ماهیگیران روی اسکله تورهایشان را تعمیر می‌کنند و نانوا نان گرم را به بازار "
        "می‌برد. در زمستان نگهبان پیر فانوس دریایی کشتی‌ها را می‌شمارد و نام آن‌ها را در دفتری می‌نویسد که موزه بعدها "
        "به بازدیدکنندگانی از سراسر کشور نشان خواهد داد."
    ),
    "Hindi": (
        "बंदरगाह का शहर धीरे-धीरे जागता है। मछुआरे घाट पर अपने जाल ठीक करते हैं और नानबाई गरम रोटी बाज़ार ले जाता है। "
        "सर्दियों में बूढ़ा प्रकाशस्तंभ रक्षक जहाज़ों को गिनता है और उनके नाम एक कॉपी में लिखता है, जिसे संग्रहालय बाद में देश "
        "भर से आए लोगों को दिखाएगा।"
    ),
    "Thai": (
        "เมืองท่าค่อยๆ ตื่นขึ้น ชาวประมงซ่อมแหอยู่บนท่าเรือ ขณะที่คนทำขนมปังนำขนมปังอุ่นๆ ไปขายที่ตลาด ในฤดูหนาวผู้ดูแลประภาคาร"
        "สูงอายุนับเรือและเขียนชื่อเรือลงในสมุดบันทึก ซึ่งพิพิธภัณฑ์จะนำมาแสดงให้ผู้มาเยือนจากทั่วประเทศได้ชมในภายหลัง"
    ),
    "Chinese": (
        "港口小城慢慢醒来。渔民在码头上修补渔网，面包师把热面包送到市场。冬天，年老的灯塔看守人数着来往的船只，把它们的名字写进"
        "笔记本。后来博物馆会把这本笔记展示给来自全国各地的参观者。"
    ),
    "Japanese": (
        "港町はゆっくりと目を覚ます。漁師たちは岸壁で網を直し、パン屋は焼きたてのパンを市場へ運ぶ。冬になると、年老いた灯台守が"
        "船を数え、その名前をノートに書きとめる。そのノートは後に博物館で全国から訪れる人々に公開される。"
    ),
    "Korean": (
        "항구 도시는 천천히 깨어난다. 어부들은 부두에서 그물을 고치고 빵집 주인은 따뜻한 빵을 시장으로 나른다. 겨울이면 늙은 "
        "등대지기가 배를 세어 그 이름을 공책에 적는다. 박물관은 나중에 그 공책을 전국에서 온 방문객에게 보여 줄 것이다."
    ),
    "code and logs": (
        "2026-03-14T07:42:19.318Z WARN [pool-3-thread-17] harbour.sync.ShipRegistry - retrying PUT "
        "https://registry.example.org/api/v2/ships/9f3c1e7a-44b0-4d1e-8a55-0c2f6b7d9e10?dry_run=true "
        "(attempt=3, backoff_ms=1600): java.net.SocketTimeoutException\n"
        "def parse_row(self, raw: bytes) -> dict[str, int]:\n"
        "    return {k.strip(): int(v, 16) for k, v in (p.split(b'=') for p in raw.split(b';'))}\n"
        'cache_hits_total{endpoint="e5-large",zone="eu-west-1b"} 184467\n'
    ),
}
"""About forty words each, by language."""
